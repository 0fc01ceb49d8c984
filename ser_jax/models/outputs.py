"""What an encoder returns."""

import flax.struct
import jax


@flax.struct.dataclass
class TokenGrid:
    """Token grids of one layer, in slots.

    Attributes:
        tokens: `[b, n, d]`, float32, row-major; padding slots hold arbitrary values.
        grid_shape: (rows, columns), `[b, 2]`, int32.
        valid: Which slots are filled, `[b, n]`, bool.
        scale: Cells of the grid along a side of a patch: 1 in a ViT, more in the early
            stages of a ResNet (static).
    """

    tokens: jax.Array
    grid_shape: jax.Array
    valid: jax.Array
    scale: int = flax.struct.field(pytree_node=False, default=1)


@flax.struct.dataclass
class EncoderOutput:
    """What an encoder gives for a batch of images.

    Attributes:
        cls: Class token after the last block and the final norm, `[b, d]`, float32.
        tokens: Patch tokens after the same, `[b, n, d]`, float32.
        valid: Which of `tokens` exist, `[b, n]`, bool.
        grids: Token grid after each layer asked for (layer k: after k blocks), each
            through a norm of its own.
        cls_at: Class token after each layer asked for, `[b, d]`, float32, each through
            a norm of its own; after the last it is `cls`.
    """

    cls: jax.Array
    tokens: jax.Array
    valid: jax.Array
    grids: dict[int, TokenGrid]
    cls_at: dict[int, jax.Array]
