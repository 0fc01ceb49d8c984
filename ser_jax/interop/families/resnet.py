"""Residual networks, under torchvision's names or as a Sequential."""

import itertools
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from ser_jax.interop.families.found import FoundResNet
from ser_jax.interop.files.refused import UnreadableError
from ser_jax.interop.finding import Place
from ser_jax.interop.keys import Keys
from ser_jax.models.resnet_blocks import EXPANSION

_STEM_SIDES = (3, 7)
# Axis of a kernel -> what it counts, and which models have another number.
_WIDTHS = {
    1: ("input", "ResNeXt or the like"),
    0: ("output", "a Wide ResNet or the like"),
}


def read_resnet(place: Place) -> FoundResNet:
    """A ResNet out of its keys.

    Args:
        place: Where it is.

    Returns:
        What they say; arrays as of `ResNet`.

    Raises:
        UnreadableError: If it is a model that the package does not have, or an array is
            missing, misshapen, no float or not finite.
    """
    sizes = _stage_sizes(place)
    keys = Keys(place, _spelling(place))
    num_filters, side = _stem(keys)
    _refuse_groups(keys)
    block = "bottleneck" if keys.has("layer1.0.conv3.weight") else "basic"
    params: dict[str, Any] = {}
    stats: dict[str, Any] = {}

    def put(name: str, layer: str, conv: str, bn: str, *shape: int) -> None:
        kernel = _kernel(keys, f"{conv}.weight", *shape)
        leaves = [
            keys.take(f"{bn}.{leaf}", shape[0])
            for leaf in ("weight", "bias", "running_mean", "running_var")
        ]
        if leaves[-1].min(initial=0) < 0:
            raise UnreadableError(
                f"{keys.named(f'{bn}.running_var')} has a variance below 0"
            )
        norms = {"scale": leaves[0], "bias": leaves[1]}
        params.setdefault(name, {})[layer] = {"conv": {"kernel": kernel}, "bn": norms}
        stats.setdefault(name, {})[layer] = {
            "bn": {"mean": leaves[2], "var": leaves[3]}
        }

    put("stem", "layer1", "conv1", "bn1", num_filters, 3, side, side)
    channels = num_filters
    for stage, num_blocks in enumerate(sizes, start=1):
        inner = num_filters * 2 ** (stage - 1)
        outer = inner * EXPANSION[block]
        for i in range(num_blocks):
            name, begin = f"stage{stage}_block{i + 1}", f"layer{stage}.{i}"
            shapes = {
                "basic": [(inner, channels, 3, 3), (inner, inner, 3, 3)],
                "bottleneck": [
                    (inner, channels, 1, 1),
                    (inner, inner, 3, 3),
                    (outer, inner, 1, 1),
                ],
            }[block]
            for j, shape in enumerate(shapes, start=1):
                put(name, f"layer{j}", f"{begin}.conv{j}", f"{begin}.bn{j}", *shape)
            if channels != outer or (stage > 1 and i == 0):
                shortcut = f"{begin}.downsample"
                shape = (outer, channels, 1, 1)
                put(name, "shortcut", f"{shortcut}.0", f"{shortcut}.1", *shape)
            channels = outer
    variables = {"params": params, "batch_stats": stats}
    small = side == min(_STEM_SIDES)
    return FoundResNet(sizes, block, num_filters, small, variables, keys.finish())


def _stage_sizes(place: Place) -> tuple[int, ...]:
    """Blocks in each stage."""
    sequential = place.family == "sequential"
    pattern = r"(\d+)\.(\d+)\.conv1\." if sequential else r"layer(\d+)\.(\d+)\."
    first = _first_stage(place) if sequential else 1
    found: dict[int, set[int]] = {}
    for key in place.keys:
        if match := re.match(pattern, key):
            found.setdefault(int(match[1]), set()).add(int(match[2]))
    for stage in range(first, first + len(found)):
        blocks = found.get(stage, set())
        if not blocks or blocks != set(range(len(blocks))):
            raise UnreadableError(
                f"{place.where} has stages {sorted(found)} with blocks "
                f"{[sorted(x) for x in found.values()]}: some are missing"
            )
    return tuple(len(found[stage]) for stage in sorted(found))


def _first_stage(place: Place) -> int:
    """Number of a Sequential's first stage: ReLU and pool may stand before it."""
    return next(i for i in itertools.count(2) if f"{i}.0.conv1.weight" in place.keys)


def _spelling(place: Place) -> Callable[[str], str]:
    """From torchvision's names of arrays to the file's."""
    sequential = place.family == "sequential"
    before = _first_stage(place) - 1 if sequential else 0
    shortcut = any(".shortcut.0." in key for key in place.keys)

    def spell(name: str) -> str:
        if shortcut:
            name = name.replace(".downsample.", ".shortcut.")
        if not sequential:
            return name
        first, _, rest = name.partition(".")
        if first.startswith("layer"):
            first = str(int(first.removeprefix("layer")) + before)
        return f"{ {'conv1': '0', 'bn1': '1'}.get(first, first) }.{rest}".strip()

    return spell


def _stem(keys: Keys) -> tuple[int, int]:
    """Filters and side of the first convolution."""
    shape = keys.shape("conv1.weight")
    sides = " or ".join(map(str, _STEM_SIDES))
    if len(shape) != 4 or shape[2] != shape[3] or shape[2] not in _STEM_SIDES:
        raise UnreadableError(
            f"{keys.named('conv1.weight')} is {list(shape)}, where a square of {sides} "
            "px was expected: another stem, which the package does not have"
        )
    return shape[0], shape[2]


def _refuse_groups(keys: Keys) -> None:
    """Refuses a ResNeXt as what it is: its other convolutions are wider as well."""
    name = "layer1.0.conv2.weight"
    shape = keys.shape(name)
    if len(shape) == 4:
        _check_width(keys, name, 1, shape[0])


def _check_width(keys: Keys, name: str, axis: int, expected: int) -> None:
    found, (what, model) = keys.shape(name)[axis], _WIDTHS[axis]
    if found != expected:
        raise UnreadableError(
            f"{keys.named(name)} has {found} {what} channel(s) in place of {expected}: "
            f"{model}, which the package does not have"
        )


def _kernel(keys: Keys, name: str, *shape: int) -> np.ndarray:
    """A convolution's kernel `[h, w, in, out]`."""
    if len(keys.shape(name)) == 4:
        for axis in _WIDTHS:
            _check_width(keys, name, axis, shape[axis])
    return keys.take(name, *shape).transpose(2, 3, 1, 0)
