"""FLOPs of a training step with a regularizer over the same step without it."""

import dataclasses
from typing import Any

import jax
from absl import logging

from ser_jax.evals.flops import count_flops
from ser_jax.evals.step_flops import step_flops
from ser_jax.experiment import Experiment
from ser_jax.models.vit import ViT
from ser_jax.train_step import make_train_step


def step_and_shapes(experiment: Experiment, **encoder: Any) -> tuple[Any, Any, Any]:
    """The training step and the shapes of its arguments, for counting FLOPs.

    What `remat` recomputes is the price of memory, not part of the model's FLOPs: it is
    off in this step.

    Args:
        experiment: What is trained.
        **encoder: Changes to the encoder's attributes; those it does not have are left
            out (a ResNet has no `scan`).

    Returns:
        The step, its state and its batch, for `count_flops(*step_and_shapes(...))`.
    """
    old = experiment.learner.encoder
    wanted = {"remat": False, **encoder}
    changed = old.clone(**{k: v for k, v in wanted.items() if hasattr(old, k)})
    learner = dataclasses.replace(experiment.learner, encoder=changed)
    experiment = dataclasses.replace(experiment, learner=learner)
    step = make_train_step(
        learner, experiment.optimizer, experiment.learning_rate, experiment.step_rng
    )
    state = jax.eval_shape(experiment.init_state, experiment.init_rng)
    return step, state, experiment.abstract_batch()


def compare_flops(base: Experiment, regularized: Experiment) -> dict[str, Any]:
    """FLOPs of the two training steps over the global batch; nothing is compiled.

    Args:
        base: The objective alone.
        regularized: The same with the regularizer.

    Returns:
        FLOPs by name: counts from the jaxpr and their ratio; for a ViT also against a
        base whose class token joins at the regularizer's layer; the same by hand, where
        the hand count knows the experiment; XLA's count of the base.
    """
    flops_base = count_flops(*step_and_shapes(base))
    flops_ser = count_flops(*step_and_shapes(regularized))
    # XLA counts a loop's body once: of the two, the base alone can be had without one.
    step, *shapes = step_and_shapes(base, scan=False)
    xla = jax.jit(step).lower(*shapes).cost_analysis() or {}
    figures = {
        "flops_per_step_base": flops_base,
        "flops_per_step_ser": flops_ser,
        "flops_ratio": flops_ser / flops_base,
        "flops_per_step_base_xla": xla.get("flops"),
    }
    if isinstance(base.learner.encoder, ViT):  # else there is no class token to move
        cls_insert = regularized.learner.encoder.cls_insert
        flops_late = count_flops(*step_and_shapes(base, cls_insert=cls_insert))
        figures["flops_per_step_base_same_cls_layer"] = flops_late
        figures["flops_ratio_same_cls_layer"] = flops_ser / flops_late
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
