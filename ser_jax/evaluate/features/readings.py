"""What is read off a frozen encoder: features by name, side by side in one row."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ser_jax.evaluate.features.layers import layer_encoder
from ser_jax.evaluate.options import option
from ser_jax.models.outputs import FINAL_NORM, Encoder, norm_cls

TOKENS, MEANS = "tokens", "means"  # and "grid<k>": what can be read
_NUM_BLOCKS = 4


@dataclasses.dataclass(frozen=True)
class GridOptions:
    """Of tasks that can read a token grid beside the class token.

    Attributes:
        grid_layer: The layer that it is of.
    """

    grid_layer: int | None = option(
        None, "Layer whose token grid k-NN and linear heads read, too."
    )

    def readings(self) -> list[tuple[str, str, str]]:
        """What is read: prefix of the results, feature, reading that it is of."""
        readings = [("", "cls1", TOKENS)]
        if self.grid_layer is not None:
            grid = f"grid{self.grid_layer}"
            readings.append((f"{grid}_", grid, grid))
        return readings


class Reading(NamedTuple):
    """A function that reads features, and where they are in its rows.

    Attributes:
        read: `(variables, normalised images [b, h, w, 3]) -> [b, width]`, float32.
        variables: The variables to call it with.
        columns: Feature -> its columns. Features may overlap.
    """

    read: Callable[[Any, jax.Array], jax.Array]
    variables: Mapping[str, Any]
    columns: dict[str, slice]


def read(encoder: Encoder, variables: Mapping[str, Any], what: str) -> Reading:
    """A reading by its name.

    Args:
        encoder: The encoder.
        variables: Its variables.
        what: `TOKENS`, `MEANS`, or "grid<k>" for the grid after layer k.

    Returns:
        That of `read_tokens`, `read_means` or `read_grid`.

    Raises:
        ValueError: If the encoder has no such layer.
    """
    if what == TOKENS:
        return read_tokens(encoder, variables)
    if what == MEANS:
        return read_means(encoder, variables)
    return read_grid(encoder, variables, int(what.removeprefix("grid")))


def read_tokens(encoder: Encoder, variables: Mapping[str, Any]) -> Reading:
    """The features of linear protocols: class tokens and the mean patch token.

    Args:
        encoder: The encoder.
        variables: Its variables.

    Returns:
        "cls1", the class token; "cls4", those after each of the last four blocks that
        have one, the first on the left, all through the final norm; "patch_avg", the
        mean patch token; "cls1_avg" and "cls4_avg", with it on the right. If the token
        joins at the last block, nothing of four. Of a ResNet "cls1" alone: the mean of
        its last map is all of these.

    Reference:
        DINO (arXiv 2104.14294), released linear evaluation.
    """
    d = jax.eval_shape(encoder.apply, variables, _image(encoder)).cls.shape[1]
    if encoder.cls_insert is None:
        columns = {"cls1": slice(0, d)}
        return Reading(lambda v, x: encoder.apply(v, x).cls, variables, columns)
    first = max(encoder.depth - _NUM_BLOCKS, encoder.cls_insert) + 1
    blocks = tuple(range(first, encoder.depth + 1))
    reader = encoder.clone(grid_layers=(), cls_layers=blocks)
    params = dict(variables["params"])
    params |= {norm_cls(block): params[FINAL_NORM] for block in blocks}

    def read(variables: Any, images: jax.Array) -> jax.Array:
        out: Any = reader.apply(variables, images)
        mean = jnp.mean(out.tokens, axis=1)  # [b, d]; images fill the grid
        return jnp.concatenate([*(out.cls_at[k] for k in blocks), mean], axis=1)

    last = len(blocks)
    spans = {
        "cls1": (last - 1, last),
        "cls1_avg": (last - 1, last + 1),
        "patch_avg": (last, last + 1),
    }
    if last > 1:
        spans |= {"cls4": (0, last), "cls4_avg": (0, last + 1)}
    columns = {name: slice(i * d, j * d) for name, (i, j) in spans.items()}
    return Reading(read, dict(variables) | {"params": params}, columns)


def read_grid(encoder: Encoder, variables: Mapping[str, Any], layer: int) -> Reading:
    """The token grid after a layer, as one row.

    Args:
        encoder: The encoder.
        variables: Its variables.
        layer: Layer whose grid is read: after as many blocks.

    Returns:
        "grid<layer>": tokens `[rows * columns * d]`, row-major, through the grid's own
        norm or, where it was not regularized, a LayerNorm without scale and shift.

    Raises:
        ValueError: If the encoder has no such layer.
    """
    encode, variables = layer_encoder(encoder, variables, (layer,))

    def read(variables: Any, images: jax.Array) -> jax.Array:
        tokens = encode(variables, images).grids[layer].tokens  # [b, n, d]
        return tokens.reshape(len(tokens), -1)

    width = jax.eval_shape(read, variables, _image(encoder)).shape[1]
    return Reading(read, variables, {f"grid{layer}": slice(0, width)})


def read_means(encoder: Encoder, variables: Mapping[str, Any]) -> Reading:
    """The mean patch token after every layer.

    Args:
        encoder: The encoder.
        variables: Its variables.

    Returns:
        "mean<k>" for each layer k from 1, `[d]`, of the grid as `read_grid` reads it.
    """
    layers = tuple(range(1, encoder.depth + 1))
    encode, variables = layer_encoder(encoder, variables, layers)

    def read(variables: Any, images: jax.Array) -> jax.Array:
        grids = encode(variables, images).grids
        means = [jnp.mean(grids[layer].tokens, axis=1) for layer in layers]  # [b, d]
        return jnp.concatenate(means, axis=1)

    grids = jax.eval_shape(encode, variables, _image(encoder)).grids
    ends = np.cumsum([grids[layer].tokens.shape[2] for layer in layers]).tolist()
    starts = [0, *ends[:-1]]
    columns = {
        f"mean{layer}": slice(*span)
        for layer, span in zip(layers, zip(starts, ends, strict=True), strict=True)
    }
    return Reading(read, variables, columns)


def _image(encoder: Encoder) -> jax.ShapeDtypeStruct:
    """The shape of one image."""
    side = encoder.image_size
    return jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
