"""A run's programs, compiled before its first step."""

import logging
import time
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from ser_jax.experiment import Experiment
from ser_jax.sharding import batch_sharded, replicated
from ser_jax.train_state import TrainState
from ser_jax.train_step import make_equiv_grad_norm, make_train_step

_logger = logging.getLogger(__name__)


def compile_steps(
    experiment: Experiment, state: TrainState, mesh: Mesh
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The training step and the gradient measurement, so that a loop compiles nothing.

    Args:
        experiment: What is trained.
        state: A state, or its shapes.
        mesh: The mesh.

    Returns:
        `(state, batch) -> (state, metrics)`, which donates the state, and
        `(state, batch) -> metrics` of `make_equiv_grad_norm`. Called with other shapes
        or types they raise; they never compile anew.
    """
    started = time.monotonic()
    step = make_train_step(
        experiment.learner,
        experiment.optimizer,
        experiment.learning_rate,
        experiment.step_rng,
    )
    grad_norm = make_equiv_grad_norm(experiment.learner, experiment.step_rng)
    arguments = (state, experiment.abstract_batch())
    shardings = (replicated(mesh), batch_sharded(mesh))
    step, grad_norm = (
        jax.jit(
            function,
            in_shardings=shardings,
            out_shardings=replicated(mesh),
            donate_argnums=donated,
        )
        .lower(*arguments)
        .compile()
        for function, donated in ((step, (0,)), (grad_norm, ()))
    )
    _logger.info("Compiled in %.1f s.", time.monotonic() - started)
    return step, grad_norm
