"""FLOPs of a training step with a regularizer over the same step without it."""

import collections
import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from ser_jax.evaluate.cost.by_hand import paper_step_flops, step_flops
from ser_jax.train.accounting import step_and_shapes
from ser_jax.train.experiment import Experiment, build
from ser_jax.train.flops import count_flops, jaxpr_flops

_logger = logging.getLogger(__name__)

_WAYS = {  # Suffix of the figures -> label.
    "": "FLOPs, jaxpr",
    "_same_cls_layer": "FLOPs, base's class token at the same layer",
    "_by_hand": "FLOPs, by hand",
    "_xla": "FLOPs, XLA with elementwise work",
    "_paper": "FLOPs, by hand, as the paper's program on 8 GPUs (paper: 1.008)",
}


class ClaimRow(NamedTuple):
    """One way of counting: FLOPs of a step of the base, regularized, their ratio.

    Attributes:
        way: "jaxpr", "same_cls_layer", "by_hand", "xla" or "paper".
        label: What that is.
        base: FLOPs.
        regularized: FLOPs.
        ratio: Of the two.
    """

    way: str
    label: str
    base: float | None
    regularized: float | None
    ratio: float | None


def without_regularizer(experiment: Experiment) -> Experiment:
    """The same run with its objective alone: what a regularizer's price is counted on.

    Args:
        experiment: What is trained.

    Returns:
        A new experiment.
    """
    config = {**experiment.config, "regularizer": {"name": "none"}}
    return build(config, experiment.resolved.steps_per_epoch * experiment.batch_size)


class StepCount(NamedTuple):
    """A step's FLOPs over the global batch, counted twice.

    Attributes:
        by_scope: As `flops_by_scope` counts them.
        xla: As XLA does, with elementwise work; None if this version does not tell.
    """

    by_scope: collections.Counter[str]
    xla: float | None


def count_step(experiment: Experiment) -> StepCount:
    """A step counted twice, in one trace; nothing is compiled.

    XLA counts a loop's body once. The encoder is unrolled for it; where other loops
    remain (SER's blocks of logits), the matrix products of their further turns are
    added as the jaxpr has them.

    Args:
        experiment: What is trained.

    Returns:
        The two counts.
    """
    step, *shapes = step_and_shapes(experiment, scan=False)
    traced = jax.jit(step).trace(*shapes)
    by_scope = jaxpr_flops(traced.jaxpr)
    xla = (traced.lower().cost_analysis() or {}).get("flops")
    if xla is not None:
        once = jaxpr_flops(traced.jaxpr, loops_once=True).total()
        xla += by_scope.total() - once
    return StepCount(by_scope, xla)


def compare_flops(
    base: Experiment,
    regularized: Experiment | None = None,
    counted: StepCount | None = None,
) -> dict[str, Any]:
    """FLOPs of the two training steps over the global batch; nothing is compiled.

    Args:
        base: The objective alone.
        regularized: The same with the regularizer; None: the base is counted alone.
        counted: `count_step` of the latter, if it is known.

    Returns:
        FLOPs by name: `flops_per_step_base`, `flops_per_step_ser` and `flops_ratio`
        from the jaxpr; the same with the suffix `_xla`; for a ViT also against a base
        whose class token joins at the regularizer's layer (`_same_cls_layer`); where
        the hand count knows the experiment, by hand (`_by_hand`) and as the paper's
        program spends them (`_paper`). Of a base alone, what ends in `_base`, `_xla`
        and `_by_hand`.
    """
    steps = [base] if regularized is None else [base, regularized]
    by_step = [count_step(base)]
    if regularized is not None:
        by_step.append(counted or count_step(regularized))
    flops: dict[str, list[Any]] = {
        "": [count.by_scope.total() for count in by_step],
        "_xla": [count.xla for count in by_step],
    }
    if regularized is not None:
        cls_insert = regularized.learner.encoder.cls_insert
        if cls_insert is not None:  # else there is no class token to move
            flops_late = count_flops(*step_and_shapes(base, cls_insert=cls_insert))
            flops["_same_cls_layer"] = [flops_late, flops[""][1]]
    try:
        flops["_by_hand"] = [step_flops(x.learner, x.batch_size).total for x in steps]
        if regularized is not None:
            by_paper = paper_step_flops(regularized.learner, regularized.batch_size)
            flops["_paper"] = [flops["_by_hand"][0], by_paper.total]
    except ValueError as error:
        _logger.info("No count by hand: %s", error)
    figures: dict[str, Any] = {}
    for way, (count_base, *count_ser) in flops.items():
        figures[f"flops_per_step_base{way}"] = count_base
        for count in count_ser:
            figures[f"flops_per_step_ser{way}"] = count
            figures[f"flops_ratio{way}"] = (
                count / count_base if count_base and count else None
            )
    return figures


def claim_rows(figures: Mapping[str, Any]) -> list[ClaimRow]:
    """What a regularizer costs, counted in several ways: rows of a table.

    Args:
        figures: What `compare_flops` found.

    Returns:
        One row for each way that was taken.
    """
    names = ("flops_per_step_base", "flops_per_step_ser", "flops_ratio")
    rows = [
        ClaimRow(
            way.removeprefix("_") or "jaxpr",
            label,
            *(figures.get(name + way) for name in names),
        )
        for way, label in _WAYS.items()
    ]
    return [row for row in rows if row.base is not None or row.regularized is not None]
