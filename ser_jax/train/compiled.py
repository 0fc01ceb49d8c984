"""A run's programs, compiled before its first step."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from ser_jax.train.devices import for_devices
from ser_jax.train.experiment import Experiment
from ser_jax.train.finite import skipping
from ser_jax.train.sharding import batch_sharded, replicated
from ser_jax.train.step import make_equiv_grad_norm, make_train_step


def compile_train_step(
    experiment: Experiment, state: Any, mesh: Mesh
) -> jax.stages.Compiled:
    """The training step; it donates the state.

    Args:
        experiment: What is trained.
        state: A state, or its shapes.
        mesh: The mesh.

    Returns:
        `(state, batch) -> (state, metrics)`. Called with other shapes or types it
        raises; it never compiles anew.
    """
    experiment = for_devices(experiment, mesh)
    step = make_train_step(
        experiment.learner,
        experiment.optimizer,
        experiment.learning_rate,
        experiment.step_rng,
        experiment.accumulate_steps,
    )
    if experiment.divergence.policy == "skip":
        step = skipping(step)
    return _compile(step, experiment, state, mesh, donated=(0,))


def compile_equiv_grad_norm(
    experiment: Experiment, state: Any, mesh: Mesh
) -> jax.stages.Compiled:
    """The measurement of `make_equiv_grad_norm`.

    Args:
        experiment: What is trained.
        state: A state, or its shapes.
        mesh: The mesh.

    Returns:
        `(state, batch) -> metrics`; like the step, it never compiles anew.
    """
    experiment = for_devices(experiment, mesh)
    measure = make_equiv_grad_norm(
        experiment.learner, experiment.step_rng, experiment.accumulate_steps
    )
    return _compile(measure, experiment, state, mesh, donated=())


def _compile(
    function: Callable[..., Any],
    experiment: Experiment,
    state: Any,
    mesh: Mesh,
    donated: tuple[int, ...],
) -> jax.stages.Compiled:
    everywhere = replicated(mesh)
    jitted = jax.jit(
        function,
        in_shardings=(everywhere, batch_sharded(mesh)),
        out_shardings=everywhere,
        donate_argnums=donated,
    )
    with jax.set_mesh(mesh):  # kernels ask for it: see models/placement.py
        return jitted.lower(state, experiment.abstract_batch()).compile()
