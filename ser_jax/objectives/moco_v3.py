"""MoCo v3: contrast each view's prediction with the EMA keys of the other."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ser_jax.losses.contrastive import info_nce
from ser_jax.losses.patch_ntxent import l2_normalize
from ser_jax.models.heads import BatchNormMlp
from ser_jax.objectives.base import EmaTarget, Metrics
from ser_jax.views import ViewSpec

_VIEWS = ("global/0", "global/1")


class MoCoV3Heads(nn.Module):
    """Projector (3 layers) and predictor (2 layers).

    Attributes:
        hidden_dim: Hidden width of both.
        output_dim: Width of the embedding.
    """

    hidden_dim: int
    output_dim: int

    def setup(self):
        """Makes the two MLPs."""
        self.projector = BatchNormMlp(self.hidden_dim, self.output_dim, 3)
        self.predictor = BatchNormMlp(self.hidden_dim, self.output_dim, 2)

    def student(self, cls: jax.Array, train: bool) -> jax.Array:
        """Returns queries `[b, output_dim]` from class tokens `[b, d]`."""
        return self.predictor(self.projector(cls, train=train), train=train)

    def target(self, cls: jax.Array, train: bool) -> jax.Array:
        """Returns keys `[b, output_dim]` from class tokens `[b, d]`."""
        return self.projector(cls, train=train)


@dataclasses.dataclass(frozen=True)
class MoCoV3:
    """MoCo v3 for vision transformers.

    Per step and in this order: the target moves towards the online network, queries of
    both views come from the online network, keys of both from the target, each query is
    contrasted with the keys of the other view over the global batch.

    Attributes:
        temperature: Softmax temperature.
        momentum: EMA momentum at step 0, rising to 1.
        hidden_dim: Hidden width of projector and predictor.
        output_dim: Width of the embedding.

    Reference:
        Chen, Xie, He, An empirical study of training self-supervised vision
        transformers (arXiv 2104.02057), Algorithm 1.
    """

    temperature: float = 0.2
    momentum: float = 0.99
    hidden_dim: int = 4096
    output_dim: int = 256

    @property
    def views(self) -> tuple[ViewSpec, ...]:
        """Two standard views."""
        return tuple(ViewSpec(name) for name in _VIEWS)

    @property
    def target(self) -> EmaTarget:
        """EMA of encoder and projector, moved before the key forward."""
        return EmaTarget(self.momentum, "before_forward", ("projector",), _VIEWS)

    def make_heads(self) -> MoCoV3Heads:
        """Projector and predictor."""
        return MoCoV3Heads(self.hidden_dim, self.output_dim)

    def init_state(self) -> dict[str, jax.Array]:
        """Nothing is carried from step to step."""
        return {}

    def loss(
        self,
        student: Mapping[str, jax.Array],
        target: Mapping[str, jax.Array],
        state: Any,
        step: jax.Array,
    ) -> tuple[jax.Array, Metrics, Any]:
        """Symmetric contrastive loss: queries of one view against keys of the other.

        Args:
            student: Queries per view, `[b, output_dim]`.
            target: Keys per view, `[b, output_dim]`.
            state: Unused, returned as it came.
            step: Unused.

        Returns:
            ctr(q0, k1) + ctr(q1, k0); metrics contrastive_accuracy (share of queries
            whose positive is the closest key) and embedding_std (mean per-dimension
            standard deviation of unit embeddings: 1 / sqrt(d) is healthy, 0 collapsed).
        """
        del step
        pairs = [(_VIEWS[0], _VIEWS[1]), (_VIEWS[1], _VIEWS[0])]
        losses, correct = zip(
            *(
                info_nce(student[q], target[k], temperature=self.temperature)
                for q, k in pairs
            ),
            strict=True,
        )
        metrics = {
            "contrastive_accuracy": jnp.mean(jnp.stack(correct)),
            "embedding_std": jnp.mean(l2_normalize(target[_VIEWS[0]]).std(axis=0)),
        }
        return sum(loss.mean() for loss in losses), metrics, state
