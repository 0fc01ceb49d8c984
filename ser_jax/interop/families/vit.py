"""Vision transformers, under the names of several libraries."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ser_jax.interop.families.found import FoundViT
from ser_jax.interop.families.vit_names import Names, names_of
from ser_jax.interop.files.refused import UnreadableError
from ser_jax.interop.finding import Place
from ser_jax.interop.keys import Keys
from ser_jax.models.outputs import BLOCKS, FINAL_NORM, PATCH_EMBED
from ser_jax.models.pos_embed import sincos_table

_SINCOS_TOLERANCE = 1e-5


def read_vit(place: Place) -> FoundViT:
    """A ViT out of its keys.

    Args:
        place: Where it is.

    Returns:
        What they say; arrays as of `ViT`, the blocks stacked.

    Raises:
        UnreadableError: If it is a model that the package does not have, or an array is
            missing, misshapen, no float or not finite.
    """
    names = names_of(place)
    begins = _block_prefixes(place, names.block)
    keys = Keys(place, _spelling(names, begins))
    depth = len(begins)
    width, patch_size = _patches(keys)
    hidden = _hidden(keys, width)
    kernel = keys.take("patch_embed.proj.weight", width, 3, patch_size, patch_size)
    params: dict[str, Any] = {
        PATCH_EMBED: {
            "kernel": kernel.transpose(2, 3, 1, 0).reshape(-1, width),
            "bias": _bias(keys, ["patch_embed.proj"], width)[0],
        },
        "cls_token": keys.take("cls_token", 1, 1, width),
        BLOCKS: _blocks(keys, depth, width, hidden),
        FINAL_NORM: _norm(keys, FINAL_NORM, width),
    }
    norm_equiv = None
    if place.has_norm_equiv:
        norm_equiv = _norm(keys, "norm_equiv", width)
    table, cls_entry = _positions(keys, width, norm_equiv is not None)
    side = math.isqrt(len(table))
    is_sincos = width % 4 == 0 and (cls_entry is None or not np.any(cls_entry))
    if is_sincos:
        off = np.abs(table - sincos_table(side, width)).max()
        is_sincos = bool(off <= max(_SINCOS_TOLERANCE, keys.precision("pos_embed")))
    return FoundViT(
        width,
        depth,
        patch_size,
        side,
        hidden,
        params,
        table,
        cls_entry,
        norm_equiv,
        is_sincos,
        keys.finish(),
    )


def _block_prefixes(place: Place, pattern: str) -> list[str]:
    """What the keys of each block begin with."""
    found: dict[int, str] = {}
    for key in place.keys:
        if match := re.match(pattern, key):
            begin = found.setdefault(int(match[1]), match[0])
            if begin != match[0]:
                raise UnreadableError(
                    f"has block {match[1]} twice: {place.prefix}{begin} and "
                    f"{place.prefix}{match[0]}"
                )
    depth = len(found)
    if not depth or set(found) != set(range(depth)):
        missing = min(set(range(depth + 1)) - set(found))
        raise UnreadableError(f"block {missing} of {place.where} is missing")
    return [found[i] for i in range(depth)]


def _spelling(names: Names, begins: list[str]) -> Callable[[str], str]:
    """From timm's names of arrays to the file's."""

    def translate(name: str, table: Mapping[str, str]) -> str:
        stem, _, leaf = name.rpartition(".")
        return table.get(name) or f"{table.get(stem, stem)}.{leaf}".lstrip(".")

    def spell(name: str) -> str:
        if match := re.match(r"blocks\.(\d+)\.(.*)", name):
            return begins[int(match[1])] + translate(match[2], names.parts)
        return translate(name, names.outer)

    return spell


def _patches(keys: Keys) -> tuple[int, int]:
    """Width and patch size."""
    shape = keys.shape("patch_embed.proj.weight")
    if len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3] or 0 in shape:
        raise UnreadableError(
            f"{keys.named('patch_embed.proj.weight')} is {list(shape)}, where [width, "
            "3, patch, patch] was expected: square patches of RGB"
        )
    if not keys.has("cls_token"):
        raise UnreadableError(
            f"{keys.named('cls_token')} is missing: a ViT without a class token, which "
            "the package does not have"
        )
    return shape[0], shape[2]


def _hidden(keys: Keys, width: int) -> int:
    """Hidden width of the MLPs."""
    given = keys.shape("blocks.0.mlp.fc1.weight")
    taken = keys.shape("blocks.0.mlp.fc2.weight")
    if len(given) != 2 or 0 in given:
        raise UnreadableError(
            f"{keys.named('blocks.0.mlp.fc1.weight')} is {list(given)} where [hidden, "
            f"{width}] was expected"
        )
    hidden = given[0]
    if taken[1:] == (hidden // 2,) and hidden % 2 == 0:
        raise UnreadableError(
            f"{keys.named('blocks.0.mlp.fc1.weight')} gives {hidden} values, twice "
            f"what {keys.named('blocks.0.mlp.fc2.weight')} takes: a SwiGLU MLP, which "
            "the package does not have"
        )
    return hidden


def _blocks(keys: Keys, depth: int, width: int, hidden: int) -> dict[str, Any]:
    """Parameters of the blocks, stacked; layer scale in the kernels and biases."""

    def each(part: str) -> list[str]:
        return [f"blocks.{i}.{part}" for i in range(depth)]

    def linear(part: str, d_in: int, d_out: int) -> dict[str, np.ndarray]:
        names = each(part)
        kernels = [keys.take(f"{name}.weight", d_out, d_in).T for name in names]
        return {"kernel": np.stack(kernels), "bias": _bias(keys, names, d_out)}

    def scaled(part: str, d_in: int, scale: str) -> dict[str, np.ndarray]:
        found = linear(part, d_in, width)
        if not keys.all_or_none([*each("ls1.gamma"), *each("ls2.gamma")]):
            return found
        gamma = np.stack([keys.take(name, width) for name in each(scale)])
        return {
            "kernel": found["kernel"] * gamma[:, None],
            "bias": found["bias"] * gamma,
        }

    def norm(part: str) -> dict[str, np.ndarray]:
        found = [_norm(keys, name, width) for name in each(part)]
        return {leaf: np.stack([x[leaf] for x in found]) for leaf in ("scale", "bias")}

    if keys.has("blocks.0.attn.q.weight"):
        apart = [linear(f"attn.{x}", width, width) for x in "qkv"]
        qkv = {
            leaf: np.concatenate([x[leaf] for x in apart], axis=-1)
            for leaf in ("kernel", "bias")
        }
    else:
        qkv = linear("attn.qkv", width, 3 * width)
    return {
        "norm1": norm("norm1"),
        "attn": {"qkv": qkv, "proj": scaled("attn.proj", width, "ls1.gamma")},
        "norm2": norm("norm2"),
        "mlp": {
            "fc1": linear("mlp.fc1", width, hidden),
            "fc2": scaled("mlp.fc2", hidden, "ls2.gamma"),
        },
    }


def _bias(keys: Keys, names: list[str], size: int) -> np.ndarray:
    """Biases `[len(names), size]`; 0 if the model has none."""
    names = [f"{name}.bias" for name in names]
    if not keys.all_or_none(names):
        return np.zeros((len(names), size), np.float32)
    return np.stack([keys.take(name, size) for name in names])


def _norm(keys: Keys, name: str, width: int) -> dict[str, np.ndarray]:
    return {
        "scale": keys.take(f"{name}.weight", width),
        "bias": keys.take(f"{name}.bias", width),
    }


def _positions(
    keys: Keys, width: int, late: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """Positions of patches, and of the class token if it has one."""
    shape = keys.shape("pos_embed")
    count = shape[1] if len(shape) == 3 else 0
    square = math.isqrt(count) ** 2 == count
    with_cls = (
        not square and math.isqrt(count - 1) ** 2 == count - 1 if count else False
    )
    if not count or not (square or with_cls) or (with_cls and late):
        expected = "a square number" if late else "a square number, or one more"
        raise UnreadableError(
            f"{keys.named('pos_embed')} is {list(shape)}, where [1, n, {width}] was "
            f"expected, n {expected}"
        )
    found = keys.take("pos_embed", 1, count, width)
    return (found[0, 1:], found[:, :1]) if with_cls else (found[0], None)
