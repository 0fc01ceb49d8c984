"""BYOL: predict the EMA target's embedding of the other view.

    loss = 2 * mean over (v, g) in view_pairs of  L(student[v], target[g])

    L(p, z) = mean_i || p_i / |p_i| - z_i / |z_i| ||^2

    student[v] = predictor(projector(cls of v))    online network
    target[g] = projector(cls of g)                target network, constants
    target_params <- m target_params + (1 - m) params, after the update

i is an image of the global batch; v and g are two views of one image, g a global one;
m rises from `momentum` to 1 along a cosine. `cosine_regression` has the square.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from ser_jax.methods.losses.cosine import cosine_regression
from ser_jax.methods.metric import Metric, Metrics
from ser_jax.methods.objectives.base import (
    EMBEDDING_STD,
    GLOBAL_VIEWS,
    EmaTarget,
    MultiCropObjective,
    mean_std,
    view_pairs,
)
from ser_jax.methods.settings import check_settings
from ser_jax.models.heads import BatchNormMlp


class BYOLHeads(nn.Module):
    """Projector and predictor, of 2 layers each.

    Attributes:
        hidden_dim: Hidden width of both.
        output_dim: Width of the embedding.
    """

    hidden_dim: int
    output_dim: int

    def setup(self):
        """Makes the two MLPs."""

        def mlp() -> BatchNormMlp:
            return BatchNormMlp(
                self.hidden_dim,
                self.output_dim,
                2,
                hidden_bias=True,
                last_batch_norm=False,
                uniform_start=False,
            )

        self.projector = mlp()
        self.predictor = mlp()

    def student(self, cls: jax.Array, train: bool) -> jax.Array:
        """Returns predictions `[b, output_dim]` from class tokens `[b, d]`."""
        return self.predictor(self.projector(cls, train=train), train=train)

    def target(self, cls: jax.Array, train: bool) -> jax.Array:
        """Returns projections `[b, output_dim]` from class tokens `[b, d]`."""
        return self.projector(cls, train=train)


@dataclasses.dataclass(frozen=True)
class BYOL(MultiCropObjective):
    """Bootstrap your own latent: no negatives.

    Attributes:
        momentum: EMA momentum at step 0, rising to 1.
        hidden_dim: Hidden width of projector and predictor.
        output_dim: Width of the embedding.
        joint_batch_norm: Whether BatchNorm, in encoders and heads, sees both views
            together, as EquiMod's, or each by itself, as DeepMind's.
        num_local: Local views; the student alone sees them.

    Raises:
        ValueError: If a setting is out of range.

    Reference:
        Grill et al., Bootstrap your own latent (arXiv 2006.07733), Algorithm 1, and the
        released MLPs: hidden layers with a bias, the last without. (EquiMod's port has
        it the other way round.) Multi-crop is our extension.
    """

    momentum: float = 0.996
    hidden_dim: int = 4096
    output_dim: int = 256
    joint_batch_norm: bool = False

    metrics: ClassVar[tuple[Metric, ...]] = (EMBEDDING_STD,)

    def __post_init__(self):
        """Checks the settings."""
        super().__post_init__()
        check_settings(
            self,
            counts=("hidden_dim", "output_dim"),
            fractions=("momentum",),
        )

    @property
    def target(self) -> EmaTarget:
        """EMA of encoder and projector, moved after the update."""
        return EmaTarget(self.momentum, "after_update", ("projector",), GLOBAL_VIEWS)

    @property
    def embedding_dim(self) -> int:
        """Width of what `embedding_std` is taken of."""
        return self.output_dim

    def make_heads(self) -> BYOLHeads:
        """Projector and predictor."""
        return BYOLHeads(self.hidden_dim, self.output_dim)

    def loss(
        self,
        student: Mapping[str, jax.Array],
        target: Mapping[str, jax.Array],
        state: Any,
        epoch: jax.Array,
    ) -> tuple[jax.Array, Metrics, Any]:
        """Twice the mean squared distance of unit vectors over the pairs of views.

        Args:
            student: Predictions per view, `[b, output_dim]`.
            target: Projections per global view, `[b, output_dim]`.
            state: Unused, returned as it came.
            epoch: Unused.

        Returns:
            The loss, with two views exactly the published sum of both directions; the
            metric embedding_std (mean per-dimension standard deviation of the target's
            unit embeddings: 1 / sqrt(d) is healthy, 0 collapsed).
        """
        del epoch
        losses = [
            cosine_regression(student[view], target[other]).mean()
            for view, other in view_pairs(self.num_local)
        ]
        metrics = {EMBEDDING_STD.name: mean_std(target[GLOBAL_VIEWS[0]])}
        return 2 * jnp.mean(jnp.stack(losses)), metrics, state
