"""The invariance half of the loss: the objective on class tokens."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from ser_jax.methods.metric import Metrics
from ser_jax.methods.objectives.base import Objective
from ser_jax.methods.variables import PyTree, Variables
from ser_jax.views.view import interleave


class Invariance(NamedTuple):
    """The objective's loss of some images, and what comes with it."""

    loss: jax.Array
    metrics: Metrics
    method_state: PyTree
    student_stats: PyTree
    target_stats: PyTree


def invariance(
    objective: Objective,
    params: PyTree,
    variables: Variables,
    student: Mapping[str, jax.Array],
    target: Mapping[str, jax.Array],
    epoch: jax.Array,
) -> Invariance:
    """The objective's loss of the images whose class tokens these are.

    Args:
        objective: The objective.
        params: Weights of its heads.
        variables: Target weights, statistics and method state.
        student: View name -> class tokens, `[b, d]`, of the objective's views.
        target: The same of the target network's; {} if there is none.
        epoch: The epoch, `[]`, int32.

    Returns:
        The loss, and state and statistics after it.
    """
    old = variables.batch_stats
    queries, student_stats = _apply(
        objective, "student", params, old["student"]["objective"], student
    )
    keys: dict[str, Any] = {}
    target_stats = None
    if objective.target is not None:
        keys, target_stats = _apply(
            objective,
            "target",
            variables.target_params["objective"],
            old["target"]["objective"],
            target,
        )
    # The target takes no gradient: it is not what we differentiate. Said again.
    loss, metrics, state = objective.loss(
        queries, jax.lax.stop_gradient(keys), variables.method_state, epoch
    )
    return Invariance(loss, metrics, state, student_stats, target_stats)


def _apply(
    objective: Objective,
    method: str,
    params: PyTree,
    stats: PyTree,
    cls: Mapping[str, jax.Array],
) -> tuple[dict[str, Any], PyTree]:
    """The objective's heads on the class tokens of each view.

    BatchNorm sees all that are given of a view, and no other view's, as in MoCo v3,
    BYOL and Barlow Twins; or those of all views together, as in SimCLR, if the
    objective says so.
    """
    heads = objective.make_heads()
    calls = [[*cls]] if objective.joint_batch_norm else [[n] for n in cls]
    outputs = {}
    for views in calls:
        out, updated = heads.apply(
            {"params": params, "batch_stats": stats},
            interleave([cls[name] for name in views]),
            True,
            method=method,
            mutable=["batch_stats"],
        )
        stats = updated.get("batch_stats", {})
        num = len(views)
        for i, name in enumerate(views):
            outputs[name] = jax.tree.map(lambda x, i=i, num=num: x[i::num], out)
    return outputs, stats
