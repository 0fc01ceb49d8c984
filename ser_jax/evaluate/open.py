"""From a workdir to a run that can be evaluated."""

from collections.abc import Mapping
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from ser_jax.config.recorded import complete, unknown_settings
from ser_jax.evaluate.data import EvalData
from ser_jax.evaluate.encoder import FrozenEncoder
from ser_jax.evaluate.run import TrainedRun, load_part
from ser_jax.methods.variables import encoder_paths
from ser_jax.storage.files import PathLike, as_path
from ser_jax.storage.reader import read_digest, read_meta
from ser_jax.train.experiment import build
from ser_jax.train.sharding import make_mesh

_DATA = ("data_dir", "train_split", "eval_split")


def load(
    workdir: PathLike, *, step: int | None = None, encoder: str | None = None
) -> FrozenEncoder:
    """A run's encoder, which maps images to class tokens: `load(workdir)(images)`.

    Args:
        workdir: The run.
        step: Which checkpoint; None is the newest.
        encoder: "online" or "target"; None is the one that its method evaluates.

    Returns:
        The encoder, its weights on every device.

    Raises:
        ValueError: As `open_run` does.
        FileNotFoundError: If there is no such checkpoint.
    """
    return open_run(workdir, step=step, encoder=encoder).encoder


def open_run(
    workdir: PathLike,
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
        num_pictures: See `Subject`.
        batch_size: The same; rounded up to a multiple of the number of devices.
        **data: Fields of `EvalData` that are not the run's own; None: they are.

    Returns:
        The run.

    Raises:
        ValueError: If there is no such encoder, the checkpoint is damaged, or another
            version of this program wrote it.
        FileNotFoundError: If there is no such checkpoint.
    """
    path = as_path(workdir)
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
    paths = encoder_paths(encoder == "target")
    variables = {
        name: load_part(path, meta["step"], part, shapes[name], mesh)
        for name, part in paths.items()
    }
    parts = [f"variables/{part}" for part in paths.values()]
    own = {key: config.dataset[key] for key in ("name", *_DATA)}
    chosen = {key: value for key, value in data.items() if value is not None}
    return TrainedRun(
        encoder=FrozenEncoder(
            experiment.learner.encoder,
            variables,
            experiment.mean,
            experiment.std,
            read_digest(path / "checkpoints", parts, meta["step"]),
        ),
        data=EvalData(**(own | chosen)),
        folder=path / "eval" / f"{meta['step']}-{encoder}",
        mesh=mesh,
        batch_size=-(-batch_size // mesh.size) * mesh.size,
        num_pictures=num_pictures,
        num_threads=config.loader.num_threads,
        seed=config.seed,
        workdir=path,
        step=meta["step"],
        encoder_name=encoder,
        experiment=experiment,
    )


def _config(saved: Mapping[str, Any], workdir: epath.Path) -> ConfigDict:
    """The config of a checkpoint, if this version of the program knows it."""
    try:
        config = complete(saved)
    except KeyError as error:
        raise ValueError(_other_version(workdir, str(error))) from error
    if unknown := unknown_settings(config):
        raise ValueError(_other_version(workdir, ", ".join(unknown)))
    return ConfigDict(config)


def _other_version(workdir: epath.Path, settings: str) -> str:
    return (
        f"the checkpoint in {workdir} was written by another version of this program: "
        f"these settings are not known now, or missing: {settings}. Evaluate it with "
        "that version."
    )
