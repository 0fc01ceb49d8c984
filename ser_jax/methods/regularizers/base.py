"""What a regularizer is: the equivariance half of the loss."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from ser_jax.geometry.group import Group
from ser_jax.views.view import View, ViewSpec

Metrics = dict[str, jax.Array]


class Regularizer(Protocol):
    """A term added to an objective's loss. Implementations are frozen dataclasses.

    A new one is: a file with the dataclass, a line in `REGULARIZERS`, a config, a test.
    """

    @property
    def weight(self) -> float:
        """Factor (lambda) on the term."""
        ...

    @property
    def share(self) -> float:
        """Share of the batch given over to views that extend the objective's."""
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
            Loss `[]`, float32, before the weight; metrics (scalars).
        """
        ...


@dataclasses.dataclass(frozen=True)
class NoRegularizer:
    """The objective alone."""

    weight: ClassVar[float] = 0.0
    share: ClassVar[float] = 0.0
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
