"""What a regularizer is: the equivariance half of the loss."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from ser_jax.geometry.group import Group
from ser_jax.methods.metric import Metric, Metrics
from ser_jax.models.outputs import EncoderOutput
from ser_jax.views.view import View, ViewSpec


class Regularizer(Protocol):
    """A term added to an objective's loss. Implementations are frozen dataclasses.

    A new one is: a file with the dataclass, a line in `REGULARIZERS`, a preset, a test.
    """

    metrics: ClassVar[tuple[Metric, ...]]
    """What its loss logs, with all settings together."""

    @property
    def weight(self) -> float:
        """Factor (lambda) on the term."""
        ...

    @property
    def share(self) -> float:
        """Share of the batch given over to views that extend the objective's."""
        ...

    @property
    def splits_invariance(self) -> bool:
        """Whether b1 and b2, the share above, have an invariance loss each."""
        ...

    @property
    def paired(self) -> bool:
        """Whether images 2i and 2i + 1 of the batch share crop and colours."""
        ...

    def views(self, objective: tuple[ViewSpec, ...]) -> tuple[ViewSpec, ...]:
        """Views wanted beside those of the objective."""
        ...

    @property
    def grid_layers(self) -> tuple[int, ...]:
        """Encoder layers whose token grids it reads."""
        ...

    @property
    def cls_layers(self) -> tuple[int, ...]:
        """Encoder layers whose class tokens it reads."""
        ...

    @property
    def cls_insert(self) -> int:
        """After how many blocks the encoder's class token should join."""
        ...

    def make_group(self, base_side: int) -> Group | None:
        """Group that its geometric views draw from; None if it has no such views."""
        ...

    def make_heads(self) -> nn.Module | None:
        """Linen module called as `heads(student, target, views, train)`, or None.

        It maps two dicts of encoder outputs (the target's is empty without a target
        network) and the dict of views to whatever `loss` wants.
        """
        ...

    def loss(
        self, outputs: Any, views: Mapping[str, View]
    ) -> tuple[jax.Array, Metrics]:
        """Equivariance loss of the whole global batch.

        Args:
            outputs: What the heads returned.
            views: All views of this step, with their parameters and group elements.

        Returns:
            Loss `[]`, float32, before the weight; values of `metrics`.
        """
        ...


@dataclasses.dataclass(frozen=True)
class NoRegularizer:
    """The objective alone."""

    metrics: ClassVar[tuple[Metric, ...]] = ()
    weight: ClassVar[float] = 0.0
    share: ClassVar[float] = 0.0
    splits_invariance: ClassVar[bool] = False
    paired: ClassVar[bool] = False
    grid_layers: ClassVar[tuple[int, ...]] = ()
    cls_layers: ClassVar[tuple[int, ...]] = ()
    cls_insert: ClassVar[int] = 0

    def views(self, objective: tuple[ViewSpec, ...]) -> tuple[ViewSpec, ...]:
        """No views of its own."""
        return ()

    def make_group(self, base_side: int) -> None:
        """No geometric views."""

    def make_heads(self) -> None:
        """No heads."""

    def loss(
        self, outputs: None, views: Mapping[str, View]
    ) -> tuple[jax.Array, Metrics]:
        """Zero."""
        return jnp.zeros(()), {}


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
    splits_invariance: ClassVar[bool] = False
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
