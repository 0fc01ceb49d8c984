"""Lie derivatives: how fast a layer's map departs from equivariance as g leaves 1."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ser_jax.evaluate.features.layers import LayerEncoder, every_layer, whole_batches
from ser_jax.evaluate.subject import Subject
from ser_jax.evaluate.task import Task, no_images
from ser_jax.models.outputs import Encoder

# Velocity of a point p = (down, right), measured from the centre: A p + b.
_FIELDS: dict[str, tuple[tuple[list[list[float]], list[float]], ...]] = {
    "translation": (([[0, 0], [0, 0]], [1, 0]), ([[0, 0], [0, 0]], [0, 1])),
    "rotation": (([[0, -1], [1, 0]], [0, 0]),),
    "scale": (([[1, 0], [0, 1]], [0, 0]),),
    "shear": (([[0, 1], [0, 0]], [0, 0]), ([[0, 0], [1, 0]], [0, 0])),
}


class _Sums(NamedTuple):
    """Of one map over one batch; the mean is kept apart, for precision."""

    num: jax.Array  # places and images
    squares: jax.Array  # of the Lie derivative, for each field, [fields]
    mean: jax.Array  # of the map, [d]
    spread: jax.Array  # squared distance from it


def lie_derivatives(
    encoder: Encoder, variables: Mapping[str, Any], images: np.ndarray
) -> dict[str, dict[str, float]]:
    """Mean squared Lie derivative of every layer's map over the variance of the map.

    The derivative at t = 0 of rho(g_t)^-1 F(g_t x): 0 for an equivariant F. Layers are
    local: F is the encoder up to that layer. Maps move by their symmetric differences,
    as bilinear interpolation does if t tends to 0 from both sides. The outermost cells,
    whose neighbours are missing, do not count. Everything is computed in float32.

    A grid is too coarse to show how its own finest detail moves, so there is a floor.
    On photographs of 32 px the mean colours of patches of 4 px, which are equivariant,
    score 19 (translation), 1.6, 1.8 and 0.8; compare encoders on the same images and
    patches.

    Args:
        encoder: The encoder; any `grid_layers` and `dtype`.
        variables: Its variables.
        images: Normalised square images, `[n, s, s, 3]`, float32.

    Returns:
        "layer_<k>", and "cls" for the final class token, which should stay as it is ->
        `translation` (t in sides of the image), `rotation` (about the centre, in
        radians), `scale` (logarithm of it), `shear` (tangent of the angle). Translation
        and shear are means over down and right. NaN if the map does not vary.

    Raises:
        ValueError: If the last layer has no cells but outermost ones.

    Reference:
        Gruver et al., The Lie Derivative for Measuring Learned Equivariance (arXiv
        2210.02984), whose derivative is in other units and not divided by the variance.
    """
    encode = every_layer(_differentiable(encoder), variables)
    side = images.shape[1] // encode.patch_size
    if side < 3:
        raise ValueError(
            f"images of {images.shape[1]} px have {side} x {side} cells of "
            f"{encode.patch_size} px, none of them inside; use 3 x 3 at least."
        )
    with jax.default_matmul_precision("highest"):
        parts = [
            jax.device_get(_tally(encode, batch))
            for batch in whole_batches(images, batch_size=32)
        ]
    return {
        name: _by_kind([part[name] for part in parts])
        for name in (*(f"layer_{k}" for k in encode.layers), "cls")
    }


def _differentiable(encoder: Encoder) -> Encoder:
    """The encoder as its derivative is wanted: in float32, of all of it, twice."""
    of_vits: dict[str, Any] = {"freeze_patch_embed": False, "attention": "xla"}
    changes = {name: x for name, x in of_vits.items() if hasattr(encoder, name)}
    return encoder.clone(dtype=jnp.float32, **changes)


@jax.jit
def _tally(encode: LayerEncoder, images: jax.Array) -> dict[str, _Sums]:
    """Sums over a batch, of every layer and the class token."""
    fields = [field for of_kind in _FIELDS.values() for field in of_kind]
    matrices = jnp.array([matrix for matrix, _ in fields], jnp.float32)
    shifts = jnp.array([shift for _, shift in fields], jnp.float32)

    def maps(images: jax.Array) -> dict[str, jax.Array]:
        out = encode(images)
        grids = {f"layer_{k}": _as_map(out.grids[k].tokens) for k in encode.layers}
        return grids | {"cls": out.cls[:, None, None]}

    def derivative(matrix: jax.Array, shift: jax.Array):
        moved = _velocity(images, matrix, shift)
        (out_moved,) = along((moved,))
        lie = {
            name: out_moved[name] - _velocity(out[name], matrix, shift)
            for name in out
            if name != "cls"
        } | {"cls": out_moved["cls"]}
        return {k: jnp.mean(jnp.square(_inside(x))) for k, x in lie.items()}

    # Blocks have a backward pass alone: that of the backward pass, which is linear, is
    # the derivative along a direction.
    out, backward = jax.vjp(maps, images)
    along = jax.vjp(backward, jax.tree.map(jnp.zeros_like, out))[1]
    squares = jax.vmap(derivative)(matrices, shifts)
    return {name: _sums(_inside(x), squares[name]) for name, x in out.items()}


def _sums(x: jax.Array, squares: jax.Array) -> _Sums:
    num = jnp.asarray(x[..., 0].size)
    mean = jnp.mean(x, axis=(0, 1, 2), keepdims=True)
    spread = jnp.sum(jnp.square(x - mean))
    return _Sums(num, squares * x.size, mean.ravel(), spread)


def _velocity(x: jax.Array, matrix: jax.Array, shift: jax.Array) -> jax.Array:
    """How maps `[b, h, w, c]` change as their content starts to move with the field."""
    _, h, w, _ = x.shape
    down, right = jnp.meshgrid(
        (jnp.arange(h) + 0.5) / h - 0.5, (jnp.arange(w) + 0.5) / w - 0.5, indexing="ij"
    )
    point = jnp.stack([down, right], axis=-1)  # [h, w, 2], in sides
    field = jnp.matmul(point, matrix.T, precision="highest") + shift[None, None]
    by_down, by_right = jnp.gradient(x, axis=(1, 2))  # central differences
    field = field[None, ..., None, :]  # [1, h, w, 1, 2]
    return -(field[..., 0] * by_down * h + field[..., 1] * by_right * w)


def _as_map(tokens: jax.Array) -> jax.Array:
    """`[b, h, w, d]` from tokens `[b, n, d]` of square grids."""
    b, n, d = tokens.shape
    side = round(n**0.5)
    return tokens.reshape(b, side, side, d)


def _inside(x: jax.Array) -> jax.Array:
    """Maps without their outermost cells; the class token, of one cell, whole."""
    return x if x.shape[1] == 1 else x[:, 1:-1, 1:-1]


def _by_kind(batches: list[_Sums]) -> dict[str, float]:
    s = jax.tree.map(lambda *x: np.stack(x).astype(np.float64), *batches)
    mean = np.average(s.mean, axis=0, weights=s.num)
    between = s.num * np.sum(np.square(s.mean - mean), axis=1)
    spread = np.sum(s.spread + between)
    rounding = 1e-10 * s.num.sum() * np.sum(mean**2)  # of a map that does not vary
    total = s.squares.sum(axis=0) / (spread if spread > rounding else np.nan)
    ends = np.cumsum([len(of_kind) for of_kind in _FIELDS.values()])
    by_kind = zip(_FIELDS, np.split(total, ends[:-1]), strict=True)
    return {kind: float(values.mean()) for kind, values in by_kind}


def _obstacle(subject: Subject, options: Any) -> str | None:
    """A grid's outermost cells are left out."""
    side = subject.image_size // subject.encoder.module.patch_size
    if side < 3:
        return f"the last layer has {side} x {side} cells; at least 3 x 3 are needed."
    return no_images(subject, options)


TASK = Task(
    name="lie_derivative",
    section="Equivariance",
    caption="Change under an infinitesimal move; 0 is equivariant.",
    measure=lambda subject, _: lie_derivatives(
        subject.encoder.module, subject.encoder.local_variables, subject.images
    ),
    obstacle=_obstacle,
    better=dict.fromkeys(_FIELDS, "lower"),
    in_detail=("layer_*",),
)
