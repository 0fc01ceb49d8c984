"""Helpers shared by tests."""

import os
import pathlib
import subprocess
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ser_jax.config.defaults import base_config
from ser_jax.train.experiment import Experiment, build
from ser_jax.train.step import make_train_step


def d4_on_array(d4: int, x: np.ndarray) -> np.ndarray:
    """D4 element on the first two axes: transpose, flip rows, flip columns."""
    x = np.swapaxes(x, 0, 1) if d4 & 4 else x
    x = x[::-1] if d4 & 2 else x
    return x[:, ::-1] if d4 & 1 else x


def assert_close(actual, expected, rel: float = 1e-4, abs: float = 1e-5):
    """Largest difference within `rel` of the largest expected value, plus `abs`."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    allowed = rel * np.abs(expected).max(initial=0) + abs
    worst = np.abs(actual - expected).max(initial=0)
    assert worst <= allowed, f"difference {worst:.3g} > {allowed:.3g}"


def tiny_config(objective: str = "moco_v3", regularizer: str = "ser", **overrides):
    """An experiment small enough to compile in seconds: 16 px, 4 x 4 tokens.

    Add-ons read layer 1 of 2.
    """
    config = base_config(objective, regularizer)
    config.batch_size = 16
    config.total_epochs = 4.0
    config.dataset.name = "digits"
    config.loader.num_threads = 2
    config.loader.num_workers = 0
    config.augment.recipe = "plain"
    config.augment.image_size = 16
    config.augment.local_size = 8
    config.model.update(variant="Ti/4", width=16, depth=2, num_heads=2, dtype="float32")
    narrow(config.objective, hidden_dim=32, output_dim=8, bottleneck_dim=8)
    narrow(
        config.regularizer,
        layer=1,
        projector_dim=16,
        share=0.5,
        hidden_dim=16,
        output_dim=8,
        bottleneck_dim=8,
        trans_dim=8,
    )
    config.optimizer.warmup_epochs = 1.0
    config.update_from_flattened_dict(overrides)
    return config


def narrow(part, **sizes):
    """Sets those of `sizes` that the part of a config has."""
    part.update({name: size for name, size in sizes.items() if name in part})


NUM_EXAMPLES = 64  # of a made-up training set: 4 steps an epoch


def tiny_experiment(regularizer: str = "ser", **overrides) -> Experiment:
    return build(tiny_config(regularizer=regularizer, **overrides), NUM_EXAMPLES)


def real_batch(experiment: Experiment, seed: int = 0) -> dict:
    """A batch of smooth pictures: neighbouring tokens differ, as in photographs."""
    rng = np.random.default_rng(seed)

    def picture(shape):
        y, x = np.mgrid[: shape[1], : shape[2]] / shape[1]
        phase, frequency = rng.uniform(0, 6, (2, shape[0], 1, 1, 3))
        wave = np.sin(frequency * x[..., None] * 3 + phase) + np.cos(
            frequency * y[..., None] * 5
        )
        return (127 + 60 * wave).astype(np.uint8)

    def fill(leaf):
        if leaf.dtype == np.uint8:
            return picture(leaf.shape)
        top, left = rng.uniform(0, 30, (2, leaf.shape[0]))
        height, width = rng.uniform(10, 60, (2, leaf.shape[0]))
        flip, side = rng.integers(0, 2, leaf.shape[0]), np.full(leaf.shape[0], 96.0)
        boxes = (top, left, height, width, side, side, flip)
        return np.stack(boxes, axis=1).astype(leaf.dtype)

    return jax.tree.map(fill, experiment.abstract_batch())


def made_up_state(experiment: Experiment) -> Any:
    """A state filled with numbers: initialising one takes a compilation."""
    rng = np.random.default_rng(0)

    def fill(path, leaf):
        if not np.issubdtype(leaf.dtype, np.floating):
            return np.zeros(leaf.shape, leaf.dtype)
        ones = "scale" in str(path[-1]) or "var" in str(path[-1])
        return ones + 0.1 * rng.normal(size=leaf.shape).astype(leaf.dtype)

    shapes = jax.eval_shape(experiment.init_state, experiment.init_rng)
    state = jax.tree_util.tree_map_with_path(fill, shapes)
    optimizer_state = jax.tree.map(np.zeros_like, state.opt_state)
    return state.replace(opt_state=optimizer_state)


def train_two_steps(experiment: Experiment) -> tuple[Any, Any, dict]:
    """Weights before and after two steps, and the last metrics, all finite."""
    state = made_up_state(experiment)
    before = state.variables.params
    step = jax.jit(
        make_train_step(
            experiment.learner,
            experiment.optimizer,
            experiment.learning_rate,
            experiment.step_rng,
        )
    )
    for seed in range(2):
        state, metrics = step(state, real_batch(experiment, seed))
        for name, value in metrics.items():
            assert np.isfinite(value), name
    assert int(state.step) == 2
    return before, state.variables.params, metrics


def trace_loss(experiment: Experiment) -> dict:
    """The shapes of a step's metrics; without the gradient a trace is half as dear."""
    learner = experiment.learner

    def run(batch):
        variables = experiment.init_state(experiment.init_rng).variables
        rng, step = experiment.step_rng, jnp.zeros((), jnp.int32)
        views = learner.make_views(rng, batch, step)
        return learner.loss(variables.params, variables, views, rng, step)

    loss, aux = jax.eval_shape(run, experiment.abstract_batch())
    assert loss.shape == () and loss.dtype == jnp.float32
    return aux.metrics


def trace_start(experiment: Experiment) -> dict:
    """The shapes of the weights and of a step's views: a third of `trace_loss`."""
    jax.eval_shape(experiment.init_state, experiment.init_rng)
    make = experiment.learner.make_views
    step = jnp.zeros((), jnp.int32)
    return jax.eval_shape(make, experiment.step_rng, experiment.abstract_batch(), step)


def write_config(config, path: pathlib.Path) -> pathlib.Path:
    """A config file that gives `config`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "import json\nfrom ml_collections import ConfigDict\n"
        f"def get_config(): return ConfigDict(json.loads({config.to_json()!r}))\n"
    )
    return path


def program_env(num_devices: int) -> dict[str, str]:
    """Environment for the program on fake CPU devices, compiled as in the tests."""
    return os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(num_devices),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "PATH": f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}",
    }


def start_main(config, workdir, **values) -> subprocess.Popen:
    """Starts the program on a config like `config`; `values` go in as flags."""
    path = write_config(config, pathlib.Path(workdir) / "config.py")
    overrides = [f"--config.{key}={value}" for key, value in values.items()]
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "ser_jax.main"),
            *(f"--config={path}", f"--workdir={workdir}", *overrides),
        ],
        env=program_env(num_devices=8),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_step(process: subprocess.Popen, workdir, step: int) -> None:
    """Returns once `step` is in the run's metrics."""
    metrics = pathlib.Path(workdir) / "metrics.jsonl"
    while process.poll() is None:
        if metrics.exists() and f'"step": {step},' in metrics.read_text():
            return
        time.sleep(0.02)
    raise AssertionError(f"the run ended early:\n{process.communicate()[1]}")
