"""From a workdir to a run that can be evaluated."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

from ser_jax.config.defaults import base_config
from ser_jax.evaluate.data import RunData
from ser_jax.evaluate.run import TrainedRun, load_part
from ser_jax.methods.variables import encoder_paths
from ser_jax.storage.reader import read_meta
from ser_jax.storage.tables import flatten
from ser_jax.train.experiment import build
from ser_jax.train.sharding import make_mesh

_DATA = ("data_dir", "train_split", "eval_split")


def open_run(
    workdir: str,
    *,
    step: int | None = None,
    encoder: str | None = None,
    num_pictures: int = 256,
    batch_size: int = 256,
    **data: str | None,
) -> TrainedRun:
    """A run's checkpoint, ready to be evaluated. Its data is not needed yet.

    Args:
        workdir: The run.
        step: Which checkpoint; None is the newest.
        encoder: "online" or "target"; None is the one that its method evaluates.
        num_pictures: See `TrainedRun`.
        batch_size: The same; rounded up to a multiple of the number of devices.
        **data: Fields of `RunData` that are not the run's own; None: they are.

    Returns:
        The run.

    Raises:
        ValueError: If there is no such encoder, the checkpoint is damaged, or another
            version of this program wrote it.
        FileNotFoundError: If there is no such checkpoint.
    """
    path = pathlib.Path(workdir).expanduser().absolute()
    meta = read_meta(path / "checkpoints", step)
    config, mesh = _config(meta["config"], path), make_mesh()
    experiment = build(config, meta["data"]["num_examples"])
    if encoder is None:
        encoder = "target" if experiment.evaluates_target else "online"
    target = experiment.learner.objective.target
    choices = ["online"] if target is None else ["online", "target"]
    if encoder not in choices:
        raise ValueError(
            f"{config.objective.name} has no encoder {encoder!r}; choose "
            f"{' or '.join(choices)}."
        )
    state = jax.eval_shape(experiment.init_state, experiment.init_rng)
    shapes = state.variables.encoder(encoder == "target")
    variables = {
        name: load_part(path, meta["step"], part, shapes[name], mesh)
        for name, part in encoder_paths(encoder == "target").items()
    }
    own = {key: config.dataset[key] for key in ("name", *_DATA)}
    chosen = {key: value for key, value in data.items() if value is not None}
    return TrainedRun(
        path,
        meta["step"],
        encoder,
        experiment,
        variables,
        RunData(**(own | chosen)),
        mesh,
        -(-batch_size // mesh.size) * mesh.size,
        num_pictures,
    )


def _config(saved: Mapping[str, Any], workdir: pathlib.Path) -> ConfigDict:
    """The config of a checkpoint, if this version of the program knows it."""
    config = ConfigDict(saved)
    try:
        known = base_config(config.objective.name, config.regularizer.name)
    except AttributeError as error:
        raise ValueError(_other_version(workdir, str(error))) from error
    settings = [set(flatten(tree.to_dict(), ".")) for tree in (config, known)]
    if differing := sorted(settings[0] ^ settings[1]):
        raise ValueError(_other_version(workdir, ", ".join(differing)))
    return config


def _other_version(workdir: pathlib.Path, settings: str) -> str:
    return (
        f"the checkpoint in {workdir} was written by another version of this program: "
        f"these settings are unknown now or were then: {settings}. Evaluate it with "
        "that version."
    )
