"""How fast a training step and the augmentation alone are, and what memory it takes."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ser_jax.train.compiled import compile_train_step
from ser_jax.train.experiment import Experiment
from ser_jax.train.memory import device_peak
from ser_jax.train.sharding import batch_sharded, replicated, shard_batch


class TimedStep:
    """A compiled training step with a state and a batch of noise, ready to run.

    Attributes:
        compile_s: Seconds that tracing, lowering and compiling took.
    """

    def __init__(self, experiment: Experiment, mesh: Mesh, ready_views: bool = False):
        """Compiles the step as training does and makes its state.

        Args:
            experiment: What is trained.
            mesh: Where; all of one process.
            ready_views: Whether the batch is the views themselves, so that the step
                has no augmentation.
        """
        self._batch = shard_batch(random_batch(experiment), mesh)
        if ready_views:
            make_views = _view_maker(experiment, mesh)
            views = make_views(experiment.step_rng, self._batch, 0)
            self._batch = jax.device_put(views, batch_sharded(mesh))
            experiment = _from_views(experiment, views)
        init = jax.jit(experiment.init_state, out_shardings=replicated(mesh))
        self._state = init(experiment.init_rng)
        self._devices = list(mesh.devices.flat)
        started = time.perf_counter()
        self._step = compile_train_step(experiment, self._state, mesh)
        self.compile_s = time.perf_counter() - started

    def run(self) -> float:
        """Seconds of one step, from its dispatch until all its outputs are there."""
        started = time.perf_counter()
        self._state, metrics = self._step(self._state, self._batch)
        jax.block_until_ready((self._state, metrics))
        return time.perf_counter() - started

    def peak_memory(self) -> tuple[int, str]:
        """Bytes used on the fullest device, and where the number is from.

        Where the backend keeps no statistics it is the compiler's plan: temporaries and
        arguments of the step. Statistics are of the process so far: ask after this
        step has run and before any other program is loaded.
        """
        peak = device_peak(self._devices)
        if peak is not None:
            return peak, "measured: memory_stats"
        plan = self._step.memory_analysis()
        if plan is None:
            return 0, "unknown"
        planned = plan.temp_size_in_bytes + plan.argument_size_in_bytes
        return planned, "planned: temporaries + arguments"


def interleaved_times(
    steps: Sequence[Callable[[], float]], num_steps: int
) -> list[np.ndarray]:
    """Times of several steps taken in turns, so that all see the same disturbances.

    Args:
        steps: Each does one step and returns its seconds.
        num_steps: Timed steps of each, after one more that is not counted.

    Returns:
        For each step, seconds `[num_steps]`.
    """
    rounds = [[step() for step in steps] for _ in range(num_steps + 1)]
    return list(np.array(rounds[1:]).T)


def augment_times(experiment: Experiment, mesh: Mesh, num_steps: int) -> np.ndarray:
    """Seconds that making a batch's views takes on the device.

    Args:
        experiment: Says which views.
        mesh: Where.
        num_steps: Batches timed.

    Returns:
        Seconds per batch, `[num_steps]`.
    """
    batch = shard_batch(random_batch(experiment), mesh)
    make_views = _view_maker(experiment, mesh)
    rng = experiment.step_rng

    def run() -> float:
        started = time.perf_counter()
        jax.block_until_ready(make_views(rng, batch, 0))
        return time.perf_counter() - started

    return interleaved_times([run], num_steps)[0]


def _view_maker(experiment: Experiment, mesh: Mesh) -> Callable[..., Any]:
    """The augmentation, jitted: `(rng, batch, step) -> views`."""
    rows = batch_sharded(mesh)
    return jax.jit(experiment.learner.make_views, in_shardings=(None, rows, None))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _FromViews(Experiment):
    """An experiment whose batches are views.

    Attributes:
        views: Their shapes.
    """

    views: Any

    def abstract_batch(self) -> Any:
        """Shapes of the views."""
        return self.views


def _from_views(experiment: Experiment, views: Any) -> Experiment:
    learner = dataclasses.replace(
        experiment.learner, make_views=lambda rng, batch, step: batch
    )
    shapes = jax.eval_shape(lambda: views)
    return _FromViews(**{**vars(experiment), "learner": learner}, views=shapes)


def random_batch(experiment: Experiment, seed: int = 0) -> dict[str, Any]:
    """A batch of noise in the loader's form: what takes time is the same.

    Args:
        experiment: Says which shapes.
        seed: Seed of the noise.

    Returns:
        Pytree of NumPy arrays.
    """
    rng = np.random.default_rng(seed)

    def fill(x):
        if x.dtype == jnp.uint8:
            return rng.integers(0, 256, x.shape, np.uint8)
        return np.zeros(x.shape, x.dtype)

    return jax.tree.map(fill, experiment.abstract_batch())
