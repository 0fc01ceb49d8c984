"""SEIS: what of a layer's token maps a transform keeps, and whether in place."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ser_jax.evaluate.features.layers import every_layer, whole_batches
from ser_jax.evaluate.layers.transforms import DEFAULT_TRANSFORMS, encoded_pairs
from ser_jax.evaluate.task import Task, one_grid
from ser_jax.models.outputs import Encoder, TokenGrid

_VARIANCE_KEPT = 0.99
_MAX_CELLS = 1000  # a 14 x 14 grid has 196; time grows with the cube of it


class _Moments(NamedTuple):
    """Second moments of two sets of maps, `[rows, n]` each, as sums over rows."""

    num_rows: jax.Array
    sums: jax.Array  # of the clean maps, the moved ones: [2, n]
    clean: jax.Array  # [n, n]
    moved: jax.Array  # [n, n]
    cross: jax.Array  # clean by moved, [n, n]
    chance: jax.Array  # the same with the moved ones' rows shuffled, [n, n]
    same_shape: jax.Array


def seis_by_depth(
    encoder: Encoder, variables: Mapping[str, Any], images: np.ndarray, *, seed: int
) -> dict[str, dict[str, dict[str, float]]]:
    """SEIS of every layer under every transform.

    Each channel's map of each image is one observation, each cell of the grid a
    variable. Canonical correlations between the maps of the images and those of the
    moved images say how much of the former a linear map can find in the latter; the
    direction of the canonical vectors, whether at the same cells. It is not told the
    transform. Equivariance that mixes channels counts as lost. Where correlations are
    equal, as all are of an equivariant encoder, their vectors are one choice of many,
    and `invariance` with them. Grids of more than 1000 cells, as of a ResNet's first
    stage, are left out: they take minutes.

    Args:
        encoder: The encoder; any `grid_layers`.
        variables: Its variables.
        images: Normalised square images, `[n, s, s, 3]`, float32.
        seed: Of the shuffle.

    Returns:
        "layer_<k>" -> transform ("rotation/90", ...) -> `equivariance` (1: a linear map
        of the grid gives one from the other), `invariance` (1: and that map is the
        identity; NaN if the transform changes the grid's shape), `chance`: the first
        with rows that do not belong together; and `rows_per_dimension`. The last should
        be 50 at least: with fewer observations than that for each of the dimensions
        compared, chance correlates them too. More images raise it.

    Reference:
        Lin, Farrahi and Cai, SEIS (arXiv 2602.04054).
    """
    encode = every_layer(encoder, variables)
    side = images.shape[1] // encode.patch_size
    sums: dict[int, dict[str, list[_Moments]]] = {}
    for i, batch in enumerate(whole_batches(images)):
        rng = jax.random.fold_in(jax.random.key(seed), i)
        for name, still, moved, _ in encoded_pairs(
            encode, jnp.asarray(batch), DEFAULT_TRANSFORMS, encode.patch_size
        ):
            for k in encode.layers:
                grid = still.grids[k]
                if (side * grid.scale) ** 2 > _MAX_CELLS:
                    continue
                part = jax.device_get(_moments(grid, moved.grids[k], rng))
                sums.setdefault(k, {}).setdefault(name, []).append(part)
    return {
        f"layer_{k}": {name: _scores(parts) for name, parts in by_name.items()}
        for k, by_name in sums.items()
    }


@jax.jit
def _moments(still: TokenGrid, moved: TokenGrid, rng: jax.Array) -> _Moments:
    """Moments of one batch. Cells that are not there are zero in every observation."""
    x, y = (_observations(grid) for grid in (still, moved))
    shuffled = jax.random.permutation(rng, y)

    def gram(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.matmul(a.T, b, precision="highest")  # fp32

    return _Moments(
        num_rows=jnp.asarray(len(x)),
        sums=jnp.stack([x.sum(axis=0), y.sum(axis=0)]),
        clean=gram(x, x),
        moved=gram(y, y),
        cross=gram(x, y),
        chance=gram(x, shuffled),
        same_shape=jnp.all(still.grid_shape == moved.grid_shape),
    )


def _observations(grid: TokenGrid) -> jax.Array:
    """`[b * d, n]` from tokens `[b, n, d]`."""
    tokens = jnp.where(grid.valid[..., None], grid.tokens, 0.0)
    return tokens.swapaxes(1, 2).reshape(-1, tokens.shape[1])


def _scores(parts: list[_Moments]) -> dict[str, float]:
    m = jax.tree.map(lambda *x: np.sum(x, axis=0, dtype=np.float64), *parts)
    x_sum, y_sum = m.sums
    x_axes, x_scale = _principal(m.clean - np.outer(x_sum, x_sum) / m.num_rows)
    y_axes, y_scale = _principal(m.moved - np.outer(y_sum, y_sum) / m.num_rows)
    rank = min(len(x_scale), len(y_scale))
    if rank == 0:  # the maps never vary
        names = ("equivariance", "invariance", "chance", "rows_per_dimension")
        return dict.fromkeys(names, float("nan"))
    to_x, to_y = x_axes / x_scale, y_axes / y_scale  # [n, rank]: to unit variates
    means = np.outer(x_sum, y_sum) / m.num_rows
    left, correlations, right = np.linalg.svd(
        to_x.T @ (m.cross - means) @ to_y, full_matrices=False
    )
    chance = np.linalg.svd(to_x.T @ (m.chance - means) @ to_y, compute_uv=False)
    x_vectors, y_vectors = _unit(to_x @ left), _unit(to_y @ right.T)
    in_place = np.abs(np.sum(x_vectors * y_vectors, axis=0))  # [rank]
    same_shape = m.same_shape == len(parts)
    return {
        "equivariance": float(correlations.mean()),
        "invariance": float(np.mean(correlations * in_place))
        if same_shape
        else float("nan"),
        "chance": float(chance.mean()),
        "rows_per_dimension": float(m.num_rows / rank),
    }


def _principal(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Leading axes `[n, r]` and singular values `[r]`; the fewest with the variance."""
    values, axes = np.linalg.eigh(gram)
    values, axes = np.maximum(values[::-1], 0), axes[:, ::-1]
    total = values.sum()
    if total == 0:
        return axes[:, :0], values[:0]
    rank = int(np.searchsorted(np.cumsum(values) / total, _VARIANCE_KEPT)) + 1
    return axes[:, :rank], np.sqrt(values[:rank])


def _unit(columns: np.ndarray) -> np.ndarray:
    return columns / np.linalg.norm(columns, axis=0)


TASK = Task(
    name="seis",
    section="Equivariance",
    caption="SEIS, by layer.",
    measure=lambda subject, _: seis_by_depth(
        subject.encoder.module,
        subject.encoder.local_variables,
        subject.images,
        seed=subject.seed,
    ),
    obstacle=one_grid,
    better={"equivariance": "higher"},
    in_detail=("layer_*",),
)
