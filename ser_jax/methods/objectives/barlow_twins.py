"""Barlow Twins: the views' cross-correlation matrix becomes the identity.

    loss = mean over (a, b) in unordered_pairs of  L(a, b)

    L = sum_d (C_dd - 1)^2 + off_diagonal_weight sum_{d != e} C_de^2

    C_de = mean_i z_id(a) z_ie(b)
    z(v) = student[v], each dimension brought to mean 0 and variance 1 over the batch
    student[v] = projector(cls of v)

i is an image of the global batch, d and e are dimensions of the embedding; a and b are
two views of one image, a a global one. `cross_correlation` has C,
`redundancy_reduction` the sums.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from ser_jax.methods.losses.barlow_twins import cross_correlation, redundancy_reduction
from ser_jax.methods.metric import Metric, Metrics, Panel
from ser_jax.methods.objectives.base import (
    EMBEDDING_STD,
    GLOBAL_VIEWS,
    MultiCropObjective,
    mean_std,
    unordered_pairs,
)
from ser_jax.methods.settings import check_settings
from ser_jax.models.heads import BatchNormMlp

MEAN_CORRELATION = Metric(
    "mean_correlation", Panel("correlation of the views"), "views", is_compared=True
)


class BarlowTwinsHeads(nn.Module):
    """Projector of 3 layers that ends in the linear one; the loss standardizes.

    Attributes:
        hidden_dim: Width of its hidden layers.
        output_dim: Width of the embedding.
    """

    hidden_dim: int
    output_dim: int

    def setup(self):
        """Makes the projector."""
        self.projector = BatchNormMlp(
            self.hidden_dim, self.output_dim, 3, last_batch_norm=False
        )

    def student(self, cls: jax.Array, train: bool) -> jax.Array:
        """Returns embeddings `[b, output_dim]` from class tokens `[b, d]`."""
        return self.projector(cls, train=train)


@dataclasses.dataclass(frozen=True)
class BarlowTwins(MultiCropObjective):
    """Redundancy reduction between views; no target network, no negatives.

    Attributes:
        off_diagonal_weight: Factor (lambda) on the off-diagonal part of the loss.
        hidden_dim: Width of the projector's hidden layers.
        output_dim: Width of the embedding.
        num_local: Local views; each is compared with both global ones.

    Raises:
        ValueError: If a setting is out of range.

    Reference:
        Zbontar et al., Barlow Twins: self-supervised learning via redundancy reduction
        (arXiv 2103.03230), Algorithm 1. The released code reduces the matrix over
        devices outside of differentiation, which divides the gradient by their number;
        here it is that of the global batch. Multi-crop is our extension.
    """

    off_diagonal_weight: float = 0.0051
    hidden_dim: int = 8192
    output_dim: int = 8192

    metrics: ClassVar[tuple[Metric, ...]] = (MEAN_CORRELATION, EMBEDDING_STD)

    def __post_init__(self):
        """Checks the settings."""
        super().__post_init__()
        check_settings(
            self,
            counts=("hidden_dim", "output_dim"),
            positive=("off_diagonal_weight",),
        )

    @property
    def embedding_dim(self) -> int:
        """Width of what `embedding_std` is taken of."""
        return self.output_dim

    @property
    def fewest_images(self) -> int:
        """As many as tell the matrix from chance: off_diagonal_weight * output_dim.

        Off the diagonal, n images of independent dimensions leave C_de^2 = 1 / n on
        the average, d (d - 1) / n in all. Below this number, 42 of 8192 dimensions,
        that alone costs more than a diagonal of zeros.
        """
        chance = self.off_diagonal_weight * (self.output_dim - 1)
        return max(super().fewest_images, math.ceil(chance))

    def make_heads(self) -> BarlowTwinsHeads:
        """Projector."""
        return BarlowTwinsHeads(self.hidden_dim, self.output_dim)

    def loss(
        self,
        student: Mapping[str, jax.Array],
        target: Mapping[str, Any],
        state: Any,
        epoch: jax.Array,
    ) -> tuple[jax.Array, Metrics, Any]:
        """Barlow Twins' loss of a pair of views, averaged over the pairs.

        Args:
            student: Embeddings per view, `[b, output_dim]`.
            target: Unused: there is no target network.
            state: Unused, returned as it came.
            epoch: Unused.

        Returns:
            The loss, with two views exactly the published one; metrics
            mean_correlation (mean of the matrix's diagonal: 1 if the views agree) and
            embedding_std (mean per-dimension standard deviation of unit embeddings:
            1 / sqrt(d) is healthy, 0 collapsed).
        """
        del target, epoch
        correlations = [
            cross_correlation(student[a], student[b])
            for a, b in unordered_pairs(self.num_local)
        ]
        losses = [
            redundancy_reduction(c, off_diagonal_weight=self.off_diagonal_weight)
            for c in correlations
        ]
        diagonals = jnp.stack([jnp.diagonal(c) for c in correlations])
        metrics = {
            MEAN_CORRELATION.name: jnp.mean(diagonals),
            EMBEDDING_STD.name: mean_std(student[GLOBAL_VIEWS[0]]),
        }
        return jnp.mean(jnp.stack(losses)), metrics, state
