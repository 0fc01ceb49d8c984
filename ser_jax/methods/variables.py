"""What a learner carries from step to step, reads of views, gives with its loss."""

import functools
from typing import Any

import flax.struct
import jax

from ser_jax.methods.metric import Metric, Metrics, Panel
from ser_jax.models.outputs import EncoderOutput

PyTree = Any

_LOSS = Panel("loss")
LOSSES = (
    Metric("loss", _LOSS, "total", is_compared=True),
    Metric("loss_inv", _LOSS, "invariance", is_compared=True),
    Metric("loss_equiv", _LOSS, "equivariance", is_compared=True),
)
CLS_STD = Metric(
    "cls_std",
    Panel("standard deviation of the class token"),
    "class token",
    is_compared=True,
)
EQUIV_WEIGHT = Metric(
    "equiv_weight",
    Panel("weight of the equivariance term", is_noisy=False, hides_constants=True),
    "weight",
)


@flax.struct.dataclass
class Variables:
    """Everything a learner carries from step to step, optimizer apart.

    Attributes:
        params: Trained weights: {"encoder", "objective", "regularizer"}.
        target_params: EMA weights: {"encoder", "objective"} with the target's heads; {}
            without a target network.
        batch_stats: BatchNorm running statistics: {"student", "target"}.
        method_state: The objective's own arrays (DINO's center).
    """

    params: PyTree
    target_params: PyTree
    batch_stats: PyTree
    method_state: PyTree

    def encoder(self, target: bool) -> PyTree:
        """Variables of an encoder alone, to apply it in evaluation.

        Args:
            target: Whether of the target network, not the online one.

        Returns:
            {"params", "batch_stats"}.
        """

        def at(path: str) -> PyTree:
            field, *keys = path.split("/")
            return functools.reduce(lambda x, key: x[key], keys, getattr(self, field))

        return {name: at(path) for name, path in encoder_paths(target).items()}


def encoder_paths(target: bool) -> dict[str, str]:
    """Where the variables of an encoder are in `Variables`, and so in a checkpoint.

    Args:
        target: Whether of the target network, not the online one.

    Returns:
        "params" and "batch_stats" -> path.
    """
    params, stats = ("target_params", "target") if target else ("params", "student")
    return {
        "params": f"{params}/encoder",
        "batch_stats": f"batch_stats/{stats}/encoder",
    }


@flax.struct.dataclass
class Features:
    """What the encoders give of a step's views: all that the loss reads of them.

    Attributes:
        student: View name -> features, gradients flowing.
        target: Likewise of the target network, constants; {} without one.
        student_stats: The encoder's BatchNorm statistics after these views.
        target_stats: Likewise the target's.
    """

    student: dict[str, EncoderOutput]
    target: dict[str, EncoderOutput]
    student_stats: PyTree
    target_stats: PyTree


@flax.struct.dataclass
class LossAux:
    """What comes with the loss.

    Attributes:
        loss_inv: The objective's loss, `[]`.
        loss_equiv: The regularizer's, before its weight, `[]`.
        metrics: Further scalars: `CLS_STD`, the objective's and the regularizer's.
        batch_stats: New BatchNorm statistics.
        method_state: New state of the objective.
    """

    loss_inv: jax.Array
    loss_equiv: jax.Array
    metrics: Metrics
    batch_stats: PyTree
    method_state: PyTree
