"""From a workdir to a run that can be evaluated."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

from ser_jax.checkpoint_reader import read_meta
from ser_jax.config import base_config
from ser_jax.data.sources import open_source
from ser_jax.experiment import build
from ser_jax.sharding import check_batch_size, make_mesh
from ser_jax.tables import flatten
from ser_jax.trained_run import TrainedRun, load_part
from ser_jax.variables import encoder_paths


def open_run(
    workdir: str, step: int | None, encoder: str | None, num_pictures: int
) -> TrainedRun:
    """A run's checkpoint, ready to be evaluated.

    Args:
        workdir: The run.
        step: Which checkpoint; None is the newest.
        encoder: "online" or "target"; None is the one that its method evaluates.
        num_pictures: See `TrainedRun`.

    Returns:
        The run.

    Raises:
        ValueError: If there is no such encoder, the data has no labels, the checkpoint
            is damaged, or another version of this program wrote it.
        FileNotFoundError: If there is no such checkpoint, or no such data.
    """
    path = pathlib.Path(workdir).expanduser().absolute()
    meta = read_meta(path / "checkpoints", step)
    config = _config(meta["config"], path)
    dataset, mesh = config.dataset, make_mesh()
    sources = {
        name: open_source(dataset.name, split, dataset.data_dir)
        for name, split in (
            ("train", dataset.train_split),
            ("eval", dataset.eval_split),
        )
    }
    for source in sources.values():
        if source.num_classes is None:
            raise ValueError(f"{dataset.name!r} has no labels to evaluate on.")
    experiment = build(config, len(sources["train"]))
    check_batch_size(config.batch_size, mesh)
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
    return TrainedRun(
        path, meta["step"], encoder, experiment, variables, sources, mesh, num_pictures
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
