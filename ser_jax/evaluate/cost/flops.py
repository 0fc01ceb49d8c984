"""FLOPs of a training step part by part, for any objective and regularizer."""

from collections.abc import Mapping
from typing import Any

from ser_jax.evaluate.cost.compare import (
    claim_rows,
    compare_flops,
    count_step,
    without_regularizer,
)
from ser_jax.evaluate.run import TrainedRun
from ser_jax.evaluate.subject import Subject
from ser_jax.evaluate.task import Task, no_run
from ser_jax.train.experiment import Experiment

# The scopes that learner.py and train_step.py name.
_PARTS = {
    "student_encoder": "student encoder",
    "target_encoder": "target encoder",
    "objective": "objective heads and loss",
    "regularizer": "regularizer",
    "views": "views",
}
_OTHER = "other"


def flops_by_part(experiment: Experiment) -> dict[str, Any]:
    """FLOPs of one step over the global batch; nothing is compiled or run.

    Args:
        experiment: What is trained.

    Returns:
        * `parts`: part -> FLOPs, matrix products counted in the jaxpr without what
          `remat` recomputes: "student encoder forward", "student encoder backward",
          "target encoder", "objective heads and loss" and "regularizer" (its heads and
          loss; both forward and backward), "views" (augmentation), "other" (optimizer,
          EMA). What a regularizer makes the encoders do is in the encoders' parts.
        * `total`, their sum; `ratio`: over that of the run without its regularizer.
        * `counted`: way of counting -> `base`, `regularized`, `ratio`: see `ClaimRow`.
    """
    counted = count_step(experiment)
    parts = by_part(counted.by_scope)
    figures = compare_flops(without_regularizer(experiment), experiment, counted)
    return {
        "parts": parts,
        "total": sum(parts.values()),
        "ratio": figures["flops_ratio"],
        "counted": {
            row.way: {
                "base": row.base,
                "regularized": row.regularized,
                "ratio": row.ratio,
            }
            for row in claim_rows(figures)
        },
    }


def by_part(by_scope: Mapping[str, int]) -> dict[str, int]:
    """FLOPs of one step, split as `flops_by_part` splits them.

    Args:
        by_scope: What `flops_by_scope` counts in the step.

    Returns:
        Part -> FLOPs; they add up to those of `by_scope` exactly.
    """
    names = [name for part in _PARTS.values() for name in _passes(part)]
    parts = dict.fromkeys([*names, _OTHER], 0)
    for scope, flops in by_scope.items():
        parts[_part(scope)] += flops
    return parts


def _passes(part: str) -> list[str]:
    """The part, or its two passes if they are told apart."""
    if part != "student encoder":
        return [part]
    return [f"{part} forward", f"{part} backward"]


def _part(scope: str) -> str:
    """The part that the outermost name of a name stack belongs to."""
    outermost = scope.partition("/")[0]  # "views", "transpose(jvp(student_encoder))"
    part = _PARTS.get(outermost.rpartition("(")[2].rstrip(")"), _OTHER)
    return _passes(part)[-1 if outermost.startswith("transpose(") else 0]


def _measure(subject: Subject, options: Any) -> dict[str, Any]:
    """`flops_by_part` of the run's step."""
    del options
    assert isinstance(subject, TrainedRun)
    return flops_by_part(subject.experiment)


TASK = Task(
    name="flops",
    section="FLOPs",
    caption="FLOPs of one training step.",
    measure=_measure,
    obstacle=no_run,
    headline=("FLOPs over the base's", "ratio"),
)
