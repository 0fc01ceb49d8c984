"""MoCo v3: contrast each view's prediction with the EMA keys of the other.

    loss = sum over (v, g) in view_pairs of  ctr(student[v], target[g])

    ctr(q, k) = 2 temperature * mean_i -log( e^s(q_i, k_i) / sum_j e^s(q_i, k_j) )
    s(q, k) = cos(q, k) / temperature

    student[v] = predictor(projector(cls of v))    queries, online network
    target[g] = projector(cls of g)                keys, target network, constants
    target_params <- m target_params + (1 - m) params, before the keys are made

i and j are images of the global batch; v and g are two views of one image, g a global
one; m rises from `momentum` to 1 along a cosine. `info_nce` has ctr.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from ser_jax.methods.losses.contrastive import info_nce
from ser_jax.methods.metric import Metric, Metrics
from ser_jax.methods.objectives.base import (
    CONTRASTIVE_ACCURACY,
    EMBEDDING_STD,
    GLOBAL_VIEWS,
    EmaTarget,
    MultiCropObjective,
    mean_std,
    view_pairs,
)
from ser_jax.methods.settings import check_settings
from ser_jax.models.heads import BatchNormMlp


class MoCoV3Heads(nn.Module):
    """Projector and predictor (2 layers).

    Attributes:
        hidden_dim: Hidden width of both.
        output_dim: Width of the embedding.
        num_projector_layers: Linear layers of the projector.
        predictor_last_norm: Whether the predictor ends in a BatchNorm.
    """

    hidden_dim: int
    output_dim: int
    num_projector_layers: int
    predictor_last_norm: bool

    def setup(self):
        """Makes the two MLPs."""
        self.projector = BatchNormMlp(
            self.hidden_dim, self.output_dim, self.num_projector_layers
        )
        self.predictor = BatchNormMlp(
            self.hidden_dim,
            self.output_dim,
            2,
            last_batch_norm=self.predictor_last_norm,
        )

    def student(self, cls: jax.Array, train: bool) -> jax.Array:
        """Returns queries `[b, output_dim]` from class tokens `[b, d]`."""
        return self.predictor(self.projector(cls, train=train), train=train)

    def target(self, cls: jax.Array, train: bool) -> jax.Array:
        """Returns keys `[b, output_dim]` from class tokens `[b, d]`."""
        return self.projector(cls, train=train)


@dataclasses.dataclass(frozen=True)
class MoCoV3(MultiCropObjective):
    """MoCo v3.

    Per step and in this order: the target moves towards the online network, queries of
    both views come from the online network, keys of both from the target, each query is
    contrasted with the keys of the other view over the global batch.

    Attributes:
        temperature: Softmax temperature.
        momentum: EMA momentum at step 0, rising to 1.
        hidden_dim: Hidden width of projector and predictor.
        output_dim: Width of the embedding.
        num_projector_layers: Linear layers of the projector: 3 for ViTs, 2 for ResNets.
        predictor_last_norm: Whether the predictor ends in a BatchNorm: for ViTs, not
            for ResNets.
        num_local: Local views; the student alone sees them.

    Reference:
        Chen, Xie, He, An empirical study of training self-supervised vision
        transformers (arXiv 2104.02057), Algorithm 1. Multi-crop as in SER's released
        2 + 4 variant: the sum of all pairs.
    """

    temperature: float = 0.2
    momentum: float = 0.99
    hidden_dim: int = 4096
    output_dim: int = 256
    num_projector_layers: int = 3
    predictor_last_norm: bool = True

    metrics: ClassVar[tuple[Metric, ...]] = (CONTRASTIVE_ACCURACY, EMBEDDING_STD)

    def __post_init__(self):
        """Checks the settings."""
        super().__post_init__()
        check_settings(
            self,
            counts=("hidden_dim", "output_dim", "num_projector_layers"),
            positive=("temperature",),
            fractions=("momentum",),
        )

    @property
    def target(self) -> EmaTarget:
        """EMA of encoder and projector, moved before the key forward."""
        return EmaTarget(self.momentum, "before_forward", ("projector",), GLOBAL_VIEWS)

    @property
    def embedding_dim(self) -> int:
        """Width of what `embedding_std` is taken of."""
        return self.output_dim

    def make_heads(self) -> MoCoV3Heads:
        """Projector and predictor."""
        return MoCoV3Heads(
            self.hidden_dim,
            self.output_dim,
            self.num_projector_layers,
            self.predictor_last_norm,
        )

    def loss(
        self,
        student: Mapping[str, jax.Array],
        target: Mapping[str, jax.Array],
        state: Any,
        epoch: jax.Array,
    ) -> tuple[jax.Array, Metrics, Any]:
        """Contrastive loss: queries of each view against keys of every other global.

        Args:
            student: Queries per view, `[b, output_dim]`.
            target: Keys per view, `[b, output_dim]`.
            state: Unused, returned as it came.
            epoch: Unused.

        Returns:
            Sum over pairs: ctr(q1, k0) + ctr(q0, k1) without locals; metrics
            contrastive_accuracy (share of queries whose positive is the closest key)
            and embedding_std (mean per-dimension standard deviation of unit
            embeddings: 1 / sqrt(d) is healthy, 0 collapsed).
        """
        del epoch
        losses, correct = zip(
            *(
                info_nce(student[q], target[k], temperature=self.temperature)
                for q, k in view_pairs(self.num_local)
            ),
            strict=True,
        )
        metrics = {
            CONTRASTIVE_ACCURACY.name: jnp.mean(jnp.stack(correct)),
            EMBEDDING_STD.name: mean_std(target[GLOBAL_VIEWS[0]]),
        }
        return sum(loss.mean() for loss in losses), metrics, state
