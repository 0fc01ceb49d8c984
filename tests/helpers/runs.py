"""What a run left: its state, its losses."""

import jax
import numpy as np

from helpers.support import made_up_state
from ser_jax.config.differences import differences
from ser_jax.data.sources import open_source
from ser_jax.evaluate.probe import make_probe
from ser_jax.storage.checkpoint import Checkpointer
from ser_jax.storage.metrics import read_metrics
from ser_jax.train import loop, sharding
from ser_jax.train.experiment import build


def final_state(config, workdir):
    """The newest checkpoint's arrays, and its step."""
    experiment = build(config, 1500)
    mesh = sharding.make_mesh()
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            x.shape, x.dtype, sharding=sharding.replicated(mesh)
        ),
        jax.eval_shape(experiment.init_state, experiment.init_rng),
    )
    with Checkpointer(workdir / "checkpoints") as checkpointer:
        state, meta = checkpointer.restore(abstract)
    return jax.device_get(state), meta["step"]


def save_made_up(config, workdir, step=1):
    """A workdir with a checkpoint, without the training."""
    dataset = config.dataset
    source = open_source(dataset.name, dataset.train_split, dataset.data_dir)
    experiment = build(config, len(source))
    everywhere = sharding.replicated(sharding.make_mesh())
    state = jax.device_put(made_up_state(experiment), everywhere)
    meta = {"config": config.to_dict(), "step": step, "data": source.fingerprint}
    with Checkpointer(workdir / "checkpoints") as checkpointer:
        checkpointer.save(step, state, meta, {})


def assert_same_state(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def assert_close_state(state, expected, config):
    """Equal but for rounding, which Adam makes steps of where gradients are zero."""
    learning_rate = config.optimizer.base_lr * config.batch_size / 256
    parts = (state.variables.params, expected.variables.params)
    differences = [
        np.abs(a - b).ravel() for a, b in zip(*map(jax.tree.leaves, parts), strict=True)
    ]
    differences = np.concatenate(differences)
    assert np.mean(differences > 1e-6) < 0.01
    assert differences.max() < 4 * 2 * learning_rate  # four steps, opposite signs


def losses(workdir):
    return {r["step"]: r["loss"] for r in read_metrics(workdir) if "loss" in r}


def run(config, workdir, steps, probe=make_probe, profile=range(0)):
    """Trains until after so many steps; gives the summary."""
    config.max_steps = steps
    return loop.train(config, str(workdir), probe=probe, profile=profile)


def once_for_equals(function):
    """A function of experiment, state and mesh that is called once for equal ones.

    Equal are experiments of which one could go on with the other's checkpoints.
    """
    known = []

    def call(experiment, *state_and_mesh):
        mesh = state_and_mesh[-1:]
        for config, its_mesh, result in known:
            if mesh == its_mesh and not differences(config, experiment.config):
                return result
        result = function(experiment, *state_and_mesh)
        known.append((experiment.config, mesh, result))
        return result

    return call
