"""What the regularizers on whole-image features have in common."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from ser_jax.models.outputs import EncoderOutput
from ser_jax.views.view import ViewSpec


@dataclasses.dataclass(frozen=True)
class FeatureRegularizer:
    """Settings of a term on one feature vector an image, at a layer of choice.

    Attributes:
        weight: Factor (lambda) on the term.
        layer: Read the features after this many blocks (a ResNet: stages). The last
            layer couples the term to the embedding; an earlier one is layer-decoupled.
        pool: "cls": the class token, there from the input, through a norm of its own;
            "mean_patch": the mean of the patch tokens after a norm.

    Raises:
        ValueError: If a setting is not one of those above.

    Reference:
        SER (arXiv 2603.06693), layer decoupling: add-ons moved from layer 12 to 3.
    """

    weight: float = 1.0
    layer: int = 12
    pool: str = "cls"

    share: ClassVar[float] = 0.0
    paired: ClassVar[bool] = False
    cls_insert: ClassVar[int] = 0

    def __post_init__(self):
        """Checks the settings."""
        if self.layer < 1:
            raise ValueError(f"layer counts blocks and must be >= 1, got {self.layer}.")
        if self.pool not in ("cls", "mean_patch"):
            raise ValueError(f"pool must be 'cls' or 'mean_patch', got {self.pool!r}.")

    @property
    def grid_layers(self) -> tuple[int, ...]:
        """The layer, if patch tokens are read."""
        return (self.layer,) if self.pool == "mean_patch" else ()

    @property
    def cls_layers(self) -> tuple[int, ...]:
        """The layer, if the class token is read."""
        return (self.layer,) if self.pool == "cls" else ()

    def views(self, objective: tuple[ViewSpec, ...]) -> tuple[ViewSpec, ...]:
        """No views beside the objective's."""
        return ()

    def make_group(self, base_side: int) -> None:
        """No geometric views."""


def pooled(output: EncoderOutput, layer: int, pool: str) -> jax.Array:
    """Feature of each image.

    Args:
        output: What the encoder returned; it holds what `pool` wants of `layer`.
        layer: Encoder layer.
        pool: "cls" or "mean_patch".

    Returns:
        `[b, d]`, float32.
    """
    if pool == "cls":
        return output.cls_at[layer]
    grid = output.grids[layer]
    valid = grid.valid[..., None]  # [b, n, 1]
    total = jnp.sum(jnp.where(valid, grid.tokens, 0.0), axis=1)
    return total / jnp.sum(valid, axis=1)
