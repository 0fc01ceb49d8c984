"""What an objective is: the invariance half of the loss."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from ser_jax.methods.metric import Metric, Metrics, Panel
from ser_jax.methods.settings import check_settings
from ser_jax.models.normalize import l2_normalize
from ser_jax.views.view import ViewSpec

GLOBAL_VIEWS = ("global/0", "global/1")

# The deviation of n draws is off by 1 / sqrt(2 n).
FEWEST_FOR_BATCH_NORM = 8

# What several objectives log, or what collapse is told by.
CONTRASTIVE_ACCURACY = Metric(
    "contrastive_accuracy",
    Panel("contrastive accuracy"),
    "contrastive",
    is_compared=True,
)
EMBEDDING_STD = Metric(
    "embedding_std",
    Panel("standard deviation of the embedding"),
    "embedding",
    is_compared=True,
)
TEACHER_ENTROPY = Metric(
    "teacher_entropy", Panel("entropy of the teacher"), "teacher", is_compared=True
)


def standard_views(num_local: int) -> tuple[ViewSpec, ...]:
    """Two global views and `num_local` small ones: multi-crop.

    Args:
        num_local: Number of local views, >= 0.

    Returns:
        "global/0", "global/1", "local/0", ...

    Reference:
        Caron et al., SwAV (arXiv 2006.09882), Sec. 3.2.
    """
    local = (
        ViewSpec(f"local/{i}", "local", small=True, statistics_group="local")
        for i in range(num_local)
    )
    first, second = GLOBAL_VIEWS
    return (ViewSpec(first, "global/0"), ViewSpec(second, "global/1"), *local)


def view_pairs(num_local: int) -> tuple[tuple[str, str], ...]:
    """Ordered pairs of views that a multi-crop loss compares.

    Args:
        num_local: Number of local views.

    Returns:
        (view, global view) for every view but the global one itself: 2 pairs without
        local views, 2 * (1 + num_local) with.
    """
    names = [spec.name for spec in standard_views(num_local)]
    return tuple((v, g) for g in GLOBAL_VIEWS for v in names if v != g)


def unordered_pairs(num_local: int) -> tuple[tuple[str, str], ...]:
    """Pairs of views, each once, that a symmetric multi-crop loss compares.

    Args:
        num_local: Number of local views, >= 0.

    Returns:
        (global view, other view): `1 + 2 * num_local` pairs, the global one first; two
        local views are never a pair.
    """
    twice = (GLOBAL_VIEWS[0], GLOBAL_VIEWS[1])  # (view, global): the other way round
    return tuple((g, v) for v, g in view_pairs(num_local) if (v, g) != twice)


def mean_std(embeddings: jax.Array) -> jax.Array:
    """Spread of embeddings: the sign of a collapse.

    Args:
        embeddings: `[b, d]`, float.

    Returns:
        Mean over dimensions of the standard deviation of the unit vectors, `[]`: about
        1 / sqrt(d) if they point everywhere, 0 if all are one.

    Reference:
        Chen and He, SimSiam (arXiv 2011.10566), Sec. 4.1.
    """
    return jnp.mean(l2_normalize(embeddings).std(axis=0))


@dataclasses.dataclass(frozen=True)
class EmaTarget:
    """A target network: an exponential moving average of the online one.

    Attributes:
        momentum: Momentum at step 0; rises to 1 along a cosine.
        advance: When it moves: "before_forward" (MoCo v3: the new target already gives
            this step's keys) or "after_update" (DINO, BYOL).
        heads: Which of the objective's heads it has beside the encoder.
        views: Names of the views it encodes.
        evaluated: Whether evaluation reads its encoder, not the online one.
    """

    momentum: float
    advance: str
    heads: tuple[str, ...]
    views: tuple[str, ...]
    evaluated: bool = False


@dataclasses.dataclass(frozen=True)
class MultiCropObjective:
    """What the objectives here have in common.

    Attributes:
        num_local: Local views beside the two global ones; a target network does not
            see them.

    Raises:
        ValueError: If the number is negative.
    """

    num_local: int = 0

    def __post_init__(self):
        """Checks the settings."""
        check_settings(self, non_negative=("num_local",))

    @property
    def views(self) -> tuple[ViewSpec, ...]:
        """Two global views, and the local ones."""
        return standard_views(self.num_local)

    @property
    def target(self) -> EmaTarget | None:
        """No target network."""
        return None

    @property
    def num_prototypes(self) -> int | None:
        """No prototypes."""
        return None

    @property
    def joint_batch_norm(self) -> bool:
        """Each view has statistics of its own."""
        return False

    @property
    def fewest_images(self) -> int:
        """As many as give BatchNorm a deviation that is off by a quarter: 8."""
        return FEWEST_FOR_BATCH_NORM

    def init_state(self) -> dict[str, jax.Array]:
        """Nothing is carried from step to step."""
        return {}


class Objective(Protocol):
    """An invariance objective; implementations are frozen dataclasses of settings.

    A new one is: a file with the dataclass, a line in `OBJECTIVES`, a config, a test.
    """

    metrics: ClassVar[tuple[Metric, ...]]
    """What its loss logs."""

    @property
    def views(self) -> tuple[ViewSpec, ...]:
        """Views the student sees."""
        ...

    @property
    def target(self) -> EmaTarget | None:
        """Target network, or None."""
        ...

    @property
    def embedding_dim(self) -> int:
        """Width of the embedding: 1 / sqrt of it is a healthy `embedding_std`."""
        ...

    @property
    def num_prototypes(self) -> int | None:
        """Prototypes that the target's distribution is over; None without any."""
        ...

    @property
    def joint_batch_norm(self) -> bool:
        """Whether BatchNorm sees all views of one size together.

        In the encoder views of a `statistics_group` stay apart, in the heads all views
        are together.
        """
        ...

    @property
    def fewest_images(self) -> int:
        """Images without which the loss or the heads' statistics mean nothing."""
        ...

    def make_heads(self) -> nn.Module:
        """Linen module with methods `student` and, with a target network, `target`.

        Each maps `(cls [b, d], train)` of one view to whatever `loss` wants. A module
        named in `EmaTarget.heads` is one of its direct submodules.
        """
        ...

    def init_state(self) -> Any:
        """Arrays that the loss carries from step to step (DINO's center), or `{}`."""
        ...

    def loss(
        self,
        student: Mapping[str, Any],
        target: Mapping[str, Any],
        state: Any,
        epoch: jax.Array,
    ) -> tuple[jax.Array, Metrics, Any]:
        """Invariance loss of the whole global batch.

        Args:
            student: View name -> output of `heads.student`.
            target: View name -> output of `heads.target`; constants.
            state: The objective's own state.
            epoch: Whole epochs done, `[]`, int32.

        Returns:
            Loss `[]`, float32; the values of `metrics`; the new state.
        """
        ...
