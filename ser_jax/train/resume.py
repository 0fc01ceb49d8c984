"""Where a run starts: at its newest checkpoint, or at the beginning."""

import contextlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from ser_jax.config.differences import differences
from ser_jax.config.recorded import complete
from ser_jax.data.sources import Source
from ser_jax.storage.checkpoint import Checkpointer
from ser_jax.train.experiment import Experiment
from ser_jax.train.sharding import replicated
from ser_jax.train.step import TrainState
from ser_jax.train.weights import StartWeights


class Start(NamedTuple):
    """Where a run goes on.

    Attributes:
        state: Replicated over the mesh.
        step: Its step.
        wall_s: Seconds already spent on it.
        lost_s: Of all seconds those that trained nothing, by metric: see `Lost`.
        data_order: Which order of the data it goes on in: how often it was rolled back.
        init: What its encoder started from, see `StartWeights.about`; None: drawn.
    """

    state: TrainState
    step: int
    wall_s: float
    lost_s: Mapping[str, float]
    data_order: int
    init: dict[str, Any] | None


def restore_or_init(
    experiment: Experiment,
    checkpointer: Checkpointer,
    source: Source,
    mesh: Mesh,
    weights: StartWeights | None = None,
) -> Start:
    """The state to train from: the newest sound checkpoint's, or a fresh one.

    Args:
        experiment: What is trained.
        checkpointer: Open on the workdir's checkpoints.
        source: Training data.
        mesh: The mesh.
        weights: What the encoder of a fresh one is; None: drawn, as all else.

    Returns:
        Where the run goes on.

    Raises:
        ValueError: If the checkpoint is of another experiment or other data, naming the
            settings that differ; or if every checkpoint is damaged.
    """
    sharding = replicated(mesh)
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        jax.eval_shape(experiment.init_state, experiment.init_rng),
    )
    # Before restoring, as another model's arrays would not even fit; and of what was
    # restored, as that may be an older checkpoint than a damaged newest one.
    newest = None
    with contextlib.suppress(ValueError, OSError):  # there is none, or it is damaged
        newest = checkpointer.read_meta()
    if newest is not None:
        _refuse_contradiction(experiment, source, newest)
    restored = checkpointer.restore(abstract)
    if restored is not None:
        state, meta = restored
        _refuse_contradiction(experiment, source, meta)
        order = meta.get("data_order", 0)  # older versions had one
        lost_s = meta.get("lost_s", {})  # and did not count this
        init = meta.get("init")
        return Start(state, meta["step"], meta["wall_s"], lost_s, order, init)
    make = jax.jit(experiment.init_state, out_shardings=sharding)
    if weights is None:
        return Start(make(experiment.init_rng), 0, 0.0, {}, 0, None)
    variables = jax.device_put(weights.variables, sharding)
    state = make(experiment.init_rng, variables)
    return Start(state, 0, 0.0, {}, 0, weights.about)


def _refuse_contradiction(
    experiment: Experiment, source: Source, meta: dict[str, Any]
) -> None:
    """Raises if a checkpoint is of another experiment or other data."""
    changed = differences(complete(meta["config"]), experiment.config)
    if meta["data"] != source.fingerprint:
        changed.append(f"data: {meta['data']} -> {source.fingerprint}")
    if changed:
        raise ValueError(
            "the workdir holds a checkpoint of another experiment. These settings "
            "differ (checkpoint -> now):\n  "
            + "\n  ".join(changed)
            + "\nUse the old settings to go on, or another --workdir to start anew."
        )
