"""Whether a run is collapsing, told from what it logs anyway."""

import collections
import dataclasses
import logging
import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ser_jax.methods.metric import Metric, Panel
from ser_jax.methods.objectives.base import EMBEDDING_STD, TEACHER_ENTROPY
from ser_jax.methods.variables import CLS_STD, EQUIV_WEIGHT
from ser_jax.train.experiment import Experiment
from ser_jax.train.step import GRAD_NORM, GRAD_NORM_EQUIV

# What a probe gives of the encoder while it trains.
_KNN = Panel("k-NN accuracy", is_noisy=False)
KNN_ACCURACY = Metric("knn_accuracy", _KNN, "class token", is_compared=True)
KNN_PIXELS = Metric("knn_accuracy_pixels", _KNN, "raw pixels")
RANKME = Metric("rankme", Panel("RankMe", is_noisy=False), "features", is_compared=True)
PROBED = (KNN_ACCURACY, KNN_PIXELS, RANKME)

Write = Callable[[int, Mapping[str, float]], None]  # A row of metrics of a step.
# Kind of collapse -> warning, None where it was looked for and is not there.
Found = dict[str, str | None]

# Shares of 1 / sqrt(d), what vectors that point everywhere have. Healthy runs on digits
# stay above 0.7 for embeddings. Class tokens share a large mean and go down to 0.12.
_LOW_EMBEDDING_STD = 0.1
_LOW_CLS_STD = 0.05
# Shares of log(number of prototypes). Healthy: 0.2 to 0.75. Without BatchNorm in its
# head DINO goes to 0.997 on digits; docs/digits.md has a run of one prototype at 0.01.
_UNIFORM_ENTROPY = 0.98
_CERTAIN_ENTROPY = 0.02
# 1: all features on one line. Digits: 6 to 7 where it learns, 2.3 where it unlearns.
_LOW_RANKME = 1.5
_LOST_ACCURACY = 0.02  # a standard error of a few hundred pictures
_EXPLODED = 10.0  # times the recent median; healthy norms stay within 5 of it
_RECENT_ROWS = 100
_MIN_RECENT_ROWS = 10
# A single odd batch is no collapse: so many rows in a row.
_PATIENCE_ROWS = 3
_PATIENCE_PROBES = 2

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Scale:
    """What the logged values are measured against.

    Attributes:
        embedding_dim: Width of what `embedding_std` is taken of.
        cls_dim: Width of the class token.
        num_prototypes: Prototypes of the teacher; None without any.
        warmup_steps: Steps in which nothing is judged: weights and centers settle.
    """

    embedding_dim: int
    cls_dim: int
    num_prototypes: int | None
    warmup_steps: int


def scale_of(experiment: Experiment, variables: Any) -> Scale:
    """The scale of an experiment.

    Args:
        experiment: What is trained.
        variables: Its `Variables`, or their shapes.

    Returns:
        The scale; its warm-up is the learning rate's, at least a tenth of the run.
    """
    objective = experiment.learner.objective
    side = experiment.image_size
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.uint8)
    cls = jax.eval_shape(experiment.embed, experiment.evaluated(variables), image)
    resolved = experiment.resolved
    return Scale(
        objective.embedding_dim,
        cls.shape[-1],
        objective.num_prototypes,
        max(resolved.warmup_steps, resolved.total_steps // 10),
    )


def judge(values: Mapping[str, float], scale: Scale) -> Found:
    """What one row of metrics says by itself.

    Args:
        values: Metrics by name; those that are absent are not judged.
        scale: What they are measured against.

    Returns:
        Kind of collapse -> a warning: what it means, what to try; None if it is fine.
    """
    found: Found = {}

    def check(kind: str, is_bad: bool, warning: str) -> None:
        found[kind] = warning if is_bad else None

    for name, what, dim, share in (
        (EMBEDDING_STD.name, "embedding", scale.embedding_dim, _LOW_EMBEDDING_STD),
        (CLS_STD.name, "class token", scale.cls_dim, _LOW_CLS_STD),
    ):
        if name in values:
            healthy = 1 / math.sqrt(dim)
            check(
                name,
                values[name] < share * healthy,
                f"{name} is {values[name]:.2g}, where {healthy:.2g} is full spread: "
                f"all images get nearly the same {what}. Try BatchNorm in the heads, a "
                "larger batch or another learning rate.",
            )
    entropy = values.get(TEACHER_ENTROPY.name)
    if entropy is not None and scale.num_prototypes:
        most = math.log(scale.num_prototypes)
        check(
            "uniform teacher",
            entropy > _UNIFORM_ENTROPY * most,
            f"teacher_entropy is {entropy:.3g} of at most {most:.3g}: the teacher says "
            "nothing, all prototypes are alike to it. Try "
            "objective.head_batch_norm=True, a lower teacher_temp or a lower "
            "learning rate.",
        )
        check(
            "certain teacher",
            entropy < _CERTAIN_ENTROPY * most,
            f"teacher_entropy is {entropy:.3g} of at most {most:.3g}: one prototype "
            "takes all of each image, in the end of every image. Try a higher "
            "teacher_temp or a lower center_momentum.",
        )
    if RANKME.name in values:
        rank = values[RANKME.name]
        check(
            RANKME.name,
            rank < _LOW_RANKME,
            f"rankme is {rank:.3g}: the features lie on one line. Try a "
            "lower learning rate or more negatives (a larger batch).",
        )
    # Where the weight's or the share's schedule is 0 there is nothing to pull.
    if values.get(EQUIV_WEIGHT.name) and values.get("loss_equiv"):
        if GRAD_NORM_EQUIV.name in values:
            check(
                GRAD_NORM_EQUIV.name,
                values[GRAD_NORM_EQUIV.name] == 0,
                "grad_norm_equiv is 0 although the equivariance term has a weight: the "
                "term trains nothing. Check that the regularizer's gradient is not "
                "stopped (SER: regularizer.equiv_grad).",
            )
    blocks = {k: v for k, v in values.items() if k.startswith("grad_norm_block_")}
    if blocks:
        still = ", ".join(name for name, norm in blocks.items() if norm == 0)
        check(
            "blocks without gradient",
            bool(still),
            f"{still}: 0, so no loss reaches these blocks. Check what stops the "
            "gradient on its way to them.",
        )
    return found


def watched(
    write: Write, scale: Scale, rows: Iterable[Mapping[str, float]] = ()
) -> Write:
    """Writes metrics, and warns in the log when they say that the run collapses.

    Args:
        write: Writes them.
        scale: What they are measured against.
        rows: Those of a resumed run so far: what they were warned of is not said again.

    Returns:
        `(step, values)` -> None.
    """
    watch = HealthWatch(scale)
    for row in rows:
        watch(int(row["step"]), row)

    def write_and_warn(step: int, values: Mapping[str, float]) -> None:
        write(step, values)
        for warning in watch(step, values):
            if jax.process_index() == 0:
                _logger.warning("Step %d: %s", step, warning)

    return write_and_warn


class HealthWatch:
    """Warns once of each kind of collapse, when it has lasted for some rows."""

    def __init__(self, scale: Scale):
        """Has seen nothing.

        Args:
            scale: What values are measured against.
        """
        self._scale = scale
        self._said: set[str] = set()
        self._lasted: collections.Counter[str] = collections.Counter()
        self._untrained_accuracy: float | None = None
        self._recent: dict[str, collections.deque[float]] = {}

    def __call__(self, step: int, values: Mapping[str, float]) -> list[str]:
        """Takes a row of metrics.

        Args:
            step: Its step; rows come in order, those of a resumed run from its start.
            values: Metrics by name.

        Returns:
            Warnings that are due and have not been given yet.
        """
        if step == 0:
            self._untrained_accuracy = values.get(KNN_ACCURACY.name)
        if step <= self._scale.warmup_steps:
            return []
        warnings = []
        found = judge(values, self._scale) | self._judge_history(values)
        for kind, warning in found.items():
            self._lasted[kind] = self._lasted[kind] + 1 if warning else 0
            is_probe = kind in (KNN_ACCURACY.name, RANKME.name)
            patience = _PATIENCE_PROBES if is_probe else _PATIENCE_ROWS
            if warning and self._lasted[kind] >= patience and kind not in self._said:
                self._said.add(kind)
                warnings.append(warning)
        return warnings

    def _judge_history(self, values: Mapping[str, float]) -> Found:
        """What a row says beside those before it."""
        found: Found = {}
        before, accuracy = self._untrained_accuracy, values.get(KNN_ACCURACY.name)
        if before is not None and accuracy is not None:
            found[KNN_ACCURACY.name] = None
            if accuracy < before - _LOST_ACCURACY:
                found[KNN_ACCURACY.name] = (
                    f"knn_accuracy is {accuracy:.3f}, less than {before:.3f} before "
                    "training: the run unlearns. Try another learning rate, a longer "
                    "warm-up or, with a target network, another EMA momentum."
                )
        worst, name = 0.0, ""
        for key, value in values.items():
            if key == GRAD_NORM.name or key.startswith("grad_norm_block_"):
                window = collections.deque[float](maxlen=_RECENT_ROWS)
                recent = self._recent.setdefault(key, window)
                if len(recent) >= _MIN_RECENT_ROWS:
                    usual = statistics.median(recent)
                    worst, name = max((worst, name), (value / max(usual, 1e-30), key))
                recent.append(value)
        if name:
            found["exploding gradient"] = None
            if worst > _EXPLODED:
                found["exploding gradient"] = (
                    f"{name} is {worst:.0f} times its recent median: the gradient "
                    "explodes. Try a lower learning rate, a longer warm-up or "
                    "optimizer.clip_norm."
                )
        return found
