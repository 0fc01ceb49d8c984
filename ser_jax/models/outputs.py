"""What an encoder is, what it returns, and what its parameters are called."""

from collections.abc import Sequence
from typing import Any, Protocol

import flax.struct
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

# Names of parameters that others than their modules speak of.
PATCH_EMBED = "patch_embed"
BLOCKS = "blocks"  # all of a ViT's, stacked along axis 0
FINAL_NORM = "norm"
PROTOTYPES = "prototypes"  # of a head, not of an encoder


def norm_cls(layer: int) -> str:
    """Name of the norm that the class token is read through after a layer."""
    return f"norm_cls_{layer}"


def norm_grid(layer: int) -> str:
    """Name of the norm that the token grid is read through after a layer."""
    return f"norm_grid_{layer}"


@flax.struct.dataclass
class TokenGrid:
    """Token grids of one layer, in slots.

    Attributes:
        tokens: `[b, n, d]`, float32, row-major; padding slots hold arbitrary values.
        grid_shape: (rows, columns), `[b, 2]`, int32.
        valid: Which slots are filled, `[b, n]`, bool.
        scale: Cells of the grid along a side of a patch: 1 in a ViT, more in the early
            stages of a ResNet (static).
        dtype: Compute dtype of the encoder that they came of (static).
    """

    tokens: jax.Array
    grid_shape: jax.Array
    valid: jax.Array
    scale: int = flax.struct.field(pytree_node=False, default=1)
    dtype: DTypeLike = flax.struct.field(pytree_node=False, default=jnp.float32)


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


@flax.struct.dataclass
class Pictures:
    """Images of one size, as an encoder takes them.

    Attributes:
        images: As of `Encoder`.
        grid_shape: As of `Encoder`.
        num_slots: As of `Encoder` (static).
    """

    images: jax.Array
    grid_shape: jax.Array | None = None
    num_slots: int | None = flax.struct.field(pytree_node=False, default=None)


class Encoder(Protocol):
    """What turns images into tokens: a linen module, `ViT` or what is called as one.

    A layer is what a grid can be read after: a block of a ViT, a stage of a ResNet.
    """

    @property
    def image_size(self) -> int:
        """Pixels a side of the training image."""
        ...

    @property
    def patch_size(self) -> int:
        """Pixels a side of what a token of the last layer stands for."""
        ...

    @property
    def depth(self) -> int:
        """Number of layers."""
        ...

    @property
    def cls_insert(self) -> int | None:
        """Layers before the class token joins; None if a mean stands for it."""
        ...

    @property
    def grid_layers(self) -> tuple[int, ...]:
        """Layers whose token grid is returned."""
        ...

    @property
    def cls_layers(self) -> tuple[int, ...]:
        """Layers whose class token is returned."""
        ...

    @property
    def has_batch_norm(self) -> bool:
        """Whether what it gives for an image depends on the batch."""
        ...

    def to_finetune(self, drop_path_rate: float) -> "Encoder":
        """The same to be trained on labels: nothing frozen, nothing read off layers.

        Args:
            drop_path_rate: Stochastic depth of the last block, where there is any.

        Returns:
            An encoder for the same parameters, less the norms of what was read off.
        """
        ...

    def __call__(
        self,
        images: jax.Array,
        grid_shape: jax.Array | None = None,
        *,
        num_slots: int | None = None,
        train: bool = False,
    ) -> EncoderOutput:
        """Encodes images.

        Args:
            images: `[b, h, w, 3]`, float, normalised; h and w multiples of the patch
                size. With `grid_shape`, square canvases whose top left corner holds
                the picture.
            grid_shape: (rows, columns) of each picture in patches, `[b, 2]`, int32;
                None if pictures fill `images`.
            num_slots: Static number of token slots; needed with `grid_shape`.
            train: Whether it is being trained.

        Returns:
            Class token, tokens and the grids asked for.
        """
        ...

    def init(self, rngs: Any, *args: Any, **kwargs: Any) -> Any:
        """Fresh variables, as of any linen module."""
        ...

    def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any:
        """The call with these variables, as of any linen module."""
        ...

    def clone(self, **updates: Any) -> Any:
        """The same with other attributes, as of any linen module."""
        ...


class RowEncoder(Encoder, Protocol):
    """One without BatchNorm: what it gives for an image depends on that image alone."""

    def together(
        self, batches: Sequence[Pictures], keep: Sequence[jax.Array] | None = None
    ) -> list[EncoderOutput]:
        """Encodes images of several sizes in one pass.

        Args:
            batches: Images of each size.
            keep: `drop_path_factors` of each; None for no stochastic depth.

        Returns:
            As a call gives, of each.
        """
        ...

    def drop_path_factors(self, rng: jax.Array, batch: int) -> jax.Array | None:
        """Draws stochastic depth.

        Args:
            rng: Key.
            batch: Number of images, b.

        Returns:
            Factors on the residual branches of each image, `[b, depth, 2]`, float32: 0
            or 1 / keep probability; None if all are kept.
        """
        ...
