"""FLOPs of a training step with a regularizer over the same step without it."""

import dataclasses
from typing import Any

import jax
from absl import logging

from ser_jax.evals.flops import count_flops
from ser_jax.evals.step_flops import step_flops
from ser_jax.experiment import Experiment
from ser_jax.train_step import make_train_step


def compare_flops(base: Experiment, regularized: Experiment) -> dict[str, Any]:
    """FLOPs of the two training steps over the global batch; nothing is compiled.

    Args:
        base: The objective alone.
        regularized: The same with the regularizer.

    Returns:
        FLOPs by name: counts from the jaxpr and their ratio, also against a base whose
        class token joins at the regularizer's layer; the same by hand, where the hand
        count knows the experiment; XLA's count of the base.
    """
    cls_layer = regularized.learner.regularizer.cls_layer
    flops_base = count_flops(*_step_and_shapes(base))
    flops_late = count_flops(*_step_and_shapes(base, cls_layer=cls_layer))
    flops_ser = count_flops(*_step_and_shapes(regularized))
    # XLA counts a loop's body once: of the two, the base alone can be had without one.
    step, *shapes = _step_and_shapes(base, scan=False)
    xla = jax.jit(step).lower(*shapes).cost_analysis() or {}
    figures = {
        "flops_per_step_base": flops_base,
        "flops_per_step_ser": flops_ser,
        "flops_ratio": flops_ser / flops_base,
        "flops_per_step_base_same_cls_layer": flops_late,
        "flops_ratio_same_cls_layer": flops_ser / flops_late,
        "flops_per_step_base_xla": xla.get("flops"),
    }
    try:
        hand_base, hand_ser = (
            step_flops(x.learner, x.config.batch_size).total
            for x in (base, regularized)
        )
    except ValueError as error:
        logging.info("No count by hand: %s", error)
        return figures
    return figures | {
        "flops_per_step_base_by_hand": hand_base,
        "flops_per_step_ser_by_hand": hand_ser,
        "flops_ratio_by_hand": hand_ser / hand_base,
    }


def _step_and_shapes(experiment: Experiment, **encoder: Any) -> tuple[Any, Any, Any]:
    """The training step, its encoder changed, and the shapes of its arguments."""
    # What `remat` recomputes is the price of memory, not part of the model's FLOPs.
    changed = experiment.learner.encoder.clone(remat=False, **encoder)
    learner = dataclasses.replace(experiment.learner, encoder=changed)
    experiment = dataclasses.replace(experiment, learner=learner)
    step = make_train_step(
        learner, experiment.optimizer, experiment.learning_rate, experiment.step_rng
    )
    state = jax.eval_shape(experiment.init_state, experiment.init_rng)
    return step, state, experiment.abstract_batch()
