"""SimCLR: contrast two views of the batch in both directions.

    loss = mean over (a, b) in unordered_pairs of  L(a, b)

    L = mean_i l(a_i, b_i) + mean_i l(b_i, a_i), or half of it: `reduction`
    l(z, z+) = -log( e^s(z, z+) / sum_{z' != z} e^s(z, z') )
    s(z, z') = cos(z, z') / temperature
    student[v] = projector(cls of v)

i is an image of the global batch, a_i and b_i are its rows of student[a], student[b],
a a global view; z' runs over all embeddings of both views but z. `nt_xent` has l.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from ser_jax.methods.losses.contrastive import nt_xent
from ser_jax.methods.metric import Metric, Metrics
from ser_jax.methods.objectives.base import (
    CONTRASTIVE_ACCURACY,
    EMBEDDING_STD,
    GLOBAL_VIEWS,
    MultiCropObjective,
    mean_std,
    unordered_pairs,
)
from ser_jax.methods.settings import check_settings
from ser_jax.models.heads import BatchNormMlp


class SimCLRHeads(nn.Module):
    """Projector.

    Attributes:
        hidden_dim: Width of its hidden layers.
        output_dim: Width of the embedding.
        num_layers: Number of linear layers.
    """

    hidden_dim: int
    output_dim: int
    num_layers: int

    def setup(self):
        """Makes the projector."""
        self.projector = BatchNormMlp(
            self.hidden_dim, self.output_dim, self.num_layers, uniform_start=False
        )

    def student(self, cls: jax.Array, train: bool) -> jax.Array:
        """Returns embeddings `[b, output_dim]` from class tokens `[b, d]`."""
        return self.projector(cls, train=train)


@dataclasses.dataclass(frozen=True)
class SimCLR(MultiCropObjective):
    """Contrastive learning with the batch's other images as negatives; no target.

    Attributes:
        temperature: Softmax temperature.
        hidden_dim: Width of the projector's hidden layers.
        output_dim: Width of the embedding.
        num_layers: Linear layers of the projector: 2 in SimCLR, 3 in version 2.
        joint_batch_norm: Whether BatchNorm, in encoder and projector, sees both views
            together, as Google's and EquiMod's does, or each by itself.
        reduction: "sum" of the means over each view's anchors, as Google's code, or
            "mean" over all anchors, half of it, as EquiMod's: LARS does not see the
            factor in kernels, but in biases and BatchNorms, and an add-on's weight is
            relative to it.
        num_local: Local views; each is contrasted with both global ones.

    Raises:
        ValueError: If a setting is out of range.

    Reference:
        Chen et al., A simple framework for contrastive learning of visual
        representations (arXiv 2002.05709), Algorithm 1, and Big self-supervised models
        are strong semi-supervised learners (arXiv 2006.10029) for the third layer. The
        projector's last BatchNorm has neither scale nor shift; Google's has a scale.
        Multi-crop is our extension.
    """

    temperature: float = 0.1
    hidden_dim: int = 2048
    output_dim: int = 128
    num_layers: int = 3
    joint_batch_norm: bool = True
    reduction: str = "sum"

    metrics: ClassVar[tuple[Metric, ...]] = (CONTRASTIVE_ACCURACY, EMBEDDING_STD)

    def __post_init__(self):
        """Checks the settings."""
        super().__post_init__()
        check_settings(
            self,
            counts=("hidden_dim", "output_dim", "num_layers"),
            positive=("temperature",),
        )
        if self.reduction not in ("sum", "mean"):
            raise ValueError(
                f"reduction must be 'sum' or 'mean', got {self.reduction!r}."
            )

    @property
    def embedding_dim(self) -> int:
        """Width of what `embedding_std` is taken of."""
        return self.output_dim

    def make_heads(self) -> SimCLRHeads:
        """Projector."""
        return SimCLRHeads(self.hidden_dim, self.output_dim, self.num_layers)

    def loss(
        self,
        student: Mapping[str, jax.Array],
        target: Mapping[str, Any],
        state: Any,
        epoch: jax.Array,
    ) -> tuple[jax.Array, Metrics, Any]:
        """Both directions of a pair of views summed, averaged over the pairs.

        Args:
            student: Embeddings per view, `[b, output_dim]`.
            target: Unused: there is no target network.
            state: Unused, returned as it came.
            epoch: Unused.

        Returns:
            The loss, with two views the sum of two means over the batch or the mean
            over both, see `reduction`; metrics contrastive_accuracy (share of anchors
            whose positive is the closest) and embedding_std (mean per-dimension
            standard deviation of unit embeddings: 1 / sqrt(d) is healthy, 0 collapsed).
        """
        del target, epoch
        losses, correct = zip(
            *(
                nt_xent(student[a], student[b], temperature=self.temperature)
                for a, b in unordered_pairs(self.num_local)
            ),
            strict=True,
        )
        metrics = {
            CONTRASTIVE_ACCURACY.name: jnp.mean(jnp.stack(correct)),
            EMBEDDING_STD.name: mean_std(student[GLOBAL_VIEWS[0]]),
        }
        factor = 2 if self.reduction == "sum" else 1
        return factor * jnp.mean(jnp.stack(losses)), metrics, state
