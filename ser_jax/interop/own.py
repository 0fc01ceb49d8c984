"""Encoders of this package, as its export writes them: our names, flat."""

import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ser_jax.interop.answers import Normalization
from ser_jax.interop.files.read import WeightsFile
from ser_jax.interop.files.refused import UnreadableError, shown
from ser_jax.interop.identity import settings, sha256
from ser_jax.models.resnet import ResNet
from ser_jax.models.vit import ViT
from ser_jax.storage.tables import flatten

FORMAT = "ser_jax"  # metadata's "format"
# Beyond these, a module would take memory before its arrays are compared.
_MOST_POSITIONS, _MOST_LAYERS, _MOST_PX = 2**26, 1024, 8192


def is_own(file: WeightsFile) -> bool:
    """Whether a file says that it is this package's."""
    return file.metadata.get("format") == FORMAT


def read_own(
    file: WeightsFile,
) -> tuple[ViT | ResNet, dict[str, Any], Normalization]:
    """An encoder that this package wrote.

    Args:
        file: The file.

    Returns:
        The module, its variables (host arrays, float32), mean and deviation of images.

    Raises:
        UnreadableError: If its metadata is not what this version writes, an array is
            missing or another, or the whole is no longer what was written.
    """
    about = _json(file, "module")
    module = _module(about, len(file.content))
    mean, std = (_channels(_json(file, name), name) for name in ("mean", "std"))
    shapes = _shapes(module)
    if names := sorted(shapes.keys() ^ file.content.keys()):
        state = "is missing" if names[0] in shapes else "is not the encoder's"
        raise UnreadableError(f"{shown(names[0])} {state}, by its own metadata")
    variables: dict[str, Any] = {}
    for name, expected in shapes.items():
        tensor = file.content[name]
        if tensor.shape != expected.shape or tensor.dtype != np.float32:
            raise UnreadableError(
                f"{name} is {list(tensor.shape)}, {tensor.dtype}, where "
                f"{list(expected.shape)}, float32, was expected by its own metadata"
            )
        array = tensor.numpy()
        if not np.isfinite(array).all():
            raise UnreadableError(f"{name} holds values that are not finite")
        _put(variables, name, array)
    if sha256(about, variables, mean, std) != file.metadata.get("digest"):
        raise UnreadableError(
            "is no longer what was written: its digest is another; export it again"
        )
    return module, variables, (mean, std)


def _json(file: WeightsFile, name: str) -> Any:
    try:
        return json.loads(file.metadata.get(name, ""))
    except (ValueError, RecursionError) as error:
        raise UnreadableError(
            f"has no {name} in its metadata that is JSON: export it again"
        ) from error


def _module(about: Any, num_arrays: int) -> ViT | ResNet:
    """The module; settings that are later than the file have their defaults."""
    kind = about.get("class") if isinstance(about, Mapping) else None
    attributes = about.get("attributes") if isinstance(about, Mapping) else None
    if kind not in ("ViT", "ResNet") or not isinstance(attributes, Mapping):
        raise UnreadableError(f"has a module of class {shown(kind)}, not ViT or ResNet")
    plain: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in attributes.items()
    }
    try:
        module = ViT(**plain) if kind == "ViT" else ResNet(**plain)
        if not set(plain) <= settings(module)["attributes"].keys():
            raise ValueError("settings that are not an encoder's own")
        if isinstance(module, ViT):
            side = module.image_size // module.patch_size
            large = side**2 * module.width > _MOST_POSITIONS
        else:
            large = sum(module.stage_sizes) > num_arrays
        if large or module.depth > _MOST_LAYERS or module.image_size > _MOST_PX:
            raise ValueError("sizes that its arrays do not have")
    except (TypeError, ValueError, ArithmeticError) as error:
        raise UnreadableError(
            f"has a module that this version does not know ({str(error)[:120]})"
        ) from error
    return module


def _shapes(module: ViT | ResNet) -> dict[str, Any]:
    """Shapes of the module's variables by path."""
    images = jax.ShapeDtypeStruct(
        (1, module.image_size, module.image_size, 3), np.float32
    )
    try:
        return flatten(jax.eval_shape(module.init, jax.random.key(0), images))
    except (TypeError, ValueError, ArithmeticError) as error:
        raise UnreadableError(
            f"has a module that cannot be built ({str(error)[:120]})"
        ) from error


def _channels(values: Any, name: str) -> tuple[float, float, float]:
    if (
        not isinstance(values, list)
        or len(values) != 3
        or not all(type(x) in (int, float) for x in values)
    ):
        raise UnreadableError(f"has a {name} that is not three numbers")
    red, green, blue = map(float, values)
    return red, green, blue


def _put(tree: dict[str, Any], path: str, leaf: np.ndarray) -> None:
    *names, last = path.split("/")
    for name in names:
        tree = tree.setdefault(name, {})
    tree[last] = leaf
