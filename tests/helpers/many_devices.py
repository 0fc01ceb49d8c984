"""Two steps of a pair of methods on numbers of devices that a test's process has not.

    JAX_NUM_CPU_DEVICES=64 python -m helpers.many_devices moco_v3 ser 1 64

prints what they gave and what the devices sent, as JSON by number of devices; and what
those of the base send on the last number. With JAX_ENABLE_X64=1 all that is float32 is
float64, so that rounding explains no difference.
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np

from helpers.support import real_batch, tiny_config
from ser_jax.benchmark.program import Program
from ser_jax.evaluate.cost.compare import without_regularizer
from ser_jax.train.compiled import compile_train_step
from ser_jax.train.experiment import Experiment, build
from ser_jax.train.sharding import make_mesh, replicated, shard_batch
from ser_jax.train.step import TrainState

BATCH, B2 = 128, 8


def experiment_of(objective: str, regularizer: str) -> Experiment:
    """Weights weigh more than tokens, as they do in what is trained on 64 devices."""
    settings = {"batch_size": BATCH, "model.width": 64, "augment.rot90_prob": 0.5}
    # Stochastic depth too, whose draws are an image's; no step that moves nothing.
    settings |= {"model.drop_path_rate": 0.2, "optimizer.warmup_epochs": 0.0}
    if regularizer == "ser":
        settings["regularizer.share"] = B2 / BATCH
    if regularizer == "augself":  # needs colours to tell apart
        settings["augment.recipe"] = "augself"
    experiment = build(tiny_config(objective, regularizer, **settings), 2 * BATCH)
    return experiment.with_encoder(dtype=jnp.float32)


def initial(experiment: Experiment) -> TrainState:
    """As trained from; modules' own weights are float32 whatever the setting."""

    def wide(x):
        return x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(wide, experiment.init_state(experiment.init_rng))


def compiled(experiment: Experiment, num_devices: int):
    """The step and its mesh."""
    mesh = make_mesh(jax.devices()[:num_devices])
    state = jax.eval_shape(lambda: initial(experiment))
    return compile_train_step(experiment, state, mesh), mesh


def sent(step, num_devices: int) -> list[dict]:
    """What the devices of a program send."""
    rows = Program(step.as_text()).collectives(num_devices)
    return [row._asdict() for row in rows]


def measured(experiment: Experiment, num_devices: int) -> dict:
    """Metrics of two steps, how they moved the weights, and what was sent."""
    step, mesh = compiled(experiment, num_devices)
    init = jax.jit(lambda: initial(experiment), out_shardings=replicated(mesh))
    state = init()
    batch = shard_batch(real_batch(experiment), mesh)
    before, metrics = jax.device_get(state.variables.params), []
    for _ in range(2):
        state, found = step(state, batch)
        metrics.append({name: float(x) for name, x in found.items()})
    after = jax.device_get(state.variables.params)
    moved = jax.tree.map(np.subtract, after, before)
    return {"metrics": metrics, "moved": seen(moved), "sent": sent(step, num_devices)}


def seen(moved) -> dict[str, list[float]]:
    """How far each part of the weights moved, and how far along some direction."""
    rng, found = np.random.default_rng(0), {}
    for part, tree in moved.items():
        flat = np.concatenate([x.ravel() for x in jax.tree.leaves(tree)])
        direction = rng.normal(size=flat.size) / flat.size**0.5
        found[part] = [float(np.linalg.norm(flat)), float(flat @ direction)]
    return found


def main(objective: str, regularizer: str, *numbers: str) -> None:
    if jax.config.jax_enable_x64:
        jnp.float32 = jnp.float64
    experiment = experiment_of(objective, regularizer)
    found = {number: measured(experiment, int(number)) for number in numbers}
    if regularizer != "none":
        base, _ = compiled(without_regularizer(experiment), int(numbers[-1]))
        found["base"] = {"sent": sent(base, int(numbers[-1]))}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
