"""Encoders whose equivariance is known, called as trained ones are."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ser_jax.geometry.action import canvas_to_slots, slot_cells
from ser_jax.models.outputs import EncoderOutput, TokenGrid

PATCH, SIDE = 4, 6
SIZE = PATCH * SIDE


class Cells(nn.Module):
    """Tokens that are mean colours of patches, which commutes with every symmetry.

    The class token is that of the second row and column.

    Attributes:
        positional: Weight of a code of its own for each slot.
        curved: Whether tokens are curved functions of the colours, eight of them.
    """

    positional: float = 0.0
    curved: bool = False
    patch_size: int = PATCH
    image_size: int = SIZE
    depth: int = 1
    grid_layers: tuple[int, ...] = ()
    dtype: type = jnp.float32

    def __call__(self, images, grid_shape=None, *, num_slots=None):
        b, s, p = len(images), images.shape[1] // PATCH, PATCH
        if grid_shape is None:
            grid_shape, num_slots = jnp.full((b, 2), s), s * s
        cells = images.reshape(b, s, p, s, p, 3).mean((2, 4))
        tokens = canvas_to_slots(cells, grid_shape, num_slots)
        if self.curved:
            mix = jax.random.normal(jax.random.key(5), (3, 8))
            tokens = jnp.matmul(tokens, mix, precision="highest")
        code = jax.random.normal(jax.random.key(7), (1, num_slots, tokens.shape[2]))
        tokens = tokens + self.positional * code
        tokens = jnp.tanh(tokens) if self.curved else tokens
        valid = slot_cells(grid_shape, num_slots)[2]
        grid = TokenGrid(tokens, grid_shape, valid)
        return EncoderOutput(tokens[:, SIDE + 1], tokens, valid, {1: grid}, {})


def noise(n=100):
    """Pictures no two patches of which are alike."""
    rng = np.random.default_rng(0)
    patches = rng.normal(size=(n, SIDE, 1, SIDE, 1, 3))
    pixels = 0.3 * rng.normal(size=(n, SIDE, PATCH, SIDE, PATCH, 3))
    return (patches + pixels).reshape(n, SIZE, SIZE, 3).astype(np.float32)


def ramps(n=8):
    """Pictures that brighten evenly to one side, each channel to its own."""
    y, x = np.mgrid[:SIZE, :SIZE][..., None] / SIZE - 0.5
    base, up, across = np.random.default_rng(0).normal(size=(3, n, 1, 1, 3))
    return (base + up * y + across * x).astype(np.float32)
