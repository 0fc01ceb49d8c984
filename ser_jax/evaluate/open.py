"""From a workdir to a run that can be evaluated."""

import contextlib
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from ser_jax.config.recorded import complete, unknown_settings
from ser_jax.data.cores import workers_for
from ser_jax.evaluate.data import EvalData
from ser_jax.evaluate.encoder import FrozenEncoder
from ser_jax.evaluate.run import TrainedRun
from ser_jax.methods.variables import encoder_paths
from ser_jax.storage.files import PathLike, as_path, matching
from ser_jax.storage.reader import (
    SavedState,
    find_checkpoint,
    list_steps,
    sound_steps,
)
from ser_jax.storage.record import DamagedCheckpointError
from ser_jax.train.experiment import build
from ser_jax.train.saved import load_encoder
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
        FloatingPointError: If a weight is not finite.
        FileNotFoundError: If there is no such checkpoint.
    """
    path = as_path(workdir)
    checkpoint = _find(path, step)
    with other_steps_named(checkpoint):
        saved = SavedState.at(checkpoint)
    meta = saved.record.meta
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
    is_target = encoder == "target"
    paths = encoder_paths(is_target).values()
    with other_steps_named(checkpoint):
        frozen = FrozenEncoder(
            experiment.learner.encoder,
            load_encoder(saved, experiment, is_target, mesh),
            experiment.mean,
            experiment.std,
            saved.digest([f"variables/{part}" for part in paths]),
        )
    own = {key: config.dataset[key] for key in ("name", *_DATA)}
    chosen = own | {key: value for key, value in data.items() if value is not None}
    return TrainedRun(
        encoder=frozen,
        data=EvalData(**chosen),
        folder=path / "eval" / f"{meta['step']}-{encoder}{_other_data(own, chosen)}",
        mesh=mesh,
        batch_size=-(-batch_size // mesh.size) * mesh.size,
        num_pictures=num_pictures,
        num_threads=config.loader.num_threads,
        num_workers=workers_for(config.loader.num_workers),
        seed=config.seed,
        workdir=path,
        step=meta["step"],
        encoder_name=encoder,
        experiment=experiment,
        saved=saved,
    )


def _find(workdir: epath.Path, step: int | None) -> epath.Path:
    """A run's checkpoint; where there is none, the message says where there is."""
    checkpoints = workdir / "checkpoints"
    if list_steps(checkpoints):
        return find_checkpoint(checkpoints, step)
    near = [
        *(parent for parent in workdir.parents[:2] if parent.name),
        *(p.parent for p in matching(workdir, "*/checkpoints")),
    ]
    runs = [str(path) for path in near if list_steps(path / "checkpoints")]
    raise FileNotFoundError(
        f"expected a checkpoint in {checkpoints}, found none; give the workdir of a "
        f"run of ser_jax.main{', such as ' if runs else ''}{' or '.join(runs[:3])}."
    )


@contextlib.contextmanager
def other_steps_named(checkpoint: epath.Path) -> Iterator[None]:
    """Adds to the refusal of a checkpoint which others could be evaluated.

    None is evaluated in its place: its numbers would be taken for this one's.

    Args:
        checkpoint: Its directory.

    Yields:
        Nothing.

    Raises:
        ValueError: If the block finds it damaged.
        FloatingPointError: If the block finds weights that are not finite.
    """
    try:
        yield
    except (DamagedCheckpointError, FloatingPointError) as error:
        rest = [k for k in sound_steps(checkpoint.parent) if str(k) != checkpoint.name]
        advice = " or ".join(f"--step={k}" for k in reversed(rest))
        text = (
            f"step {checkpoint.name} is not evaluated: {error}. Sound: "
            f"{advice or 'no other step; train again, or restore a backup'}."
        )
        is_damage = isinstance(error, DamagedCheckpointError)
        raise (ValueError if is_damage else FloatingPointError)(text) from error


def _other_data(own: Mapping[str, Any], chosen: Mapping[str, Any]) -> str:
    """What is added to the folder's name for data that are not the run's own."""
    names = [key for key in own if key != "data_dir"]
    if all(chosen[key] == own[key] for key in names):
        return ""
    text = "-".join(chosen[key] for key in names)
    return f"-{re.sub('[^A-Za-z0-9-]+', '_', text)}-{zlib.crc32(text.encode()):08x}"


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
