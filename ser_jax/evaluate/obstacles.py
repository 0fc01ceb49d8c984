"""Why a task cannot be done on a run: found before any work is done."""

import json
import pathlib

from ser_jax.data.sources import open_source
from ser_jax.evaluate.robustness.frames import PERTURBATIONS
from ser_jax.evaluate.robustness.perturbations import open_perturbed
from ser_jax.evaluate.robustness.published import open_corrupted
from ser_jax.evaluate.robustness.shifted import match_classes
from ser_jax.evaluate.run import TrainedRun
from ser_jax.evaluate.task import Options
from ser_jax.methods.regularizers.equimod import EquiMod


def no_labels(run: TrainedRun, options: Options) -> str | None:
    """Accuracy needs labelled splits."""
    del options
    return run.data.unlabelled()


def no_pictures(run: TrainedRun, options: Options) -> str | None:
    """Layers are looked at with pictures."""
    del options
    return run.data.absent()


def few_cells(run: TrainedRun, options: Options) -> str | None:
    """The Lie derivative leaves out a grid's outermost cells."""
    side = run.image_size // run.encoder.patch_size
    if side < 3:
        return f"the last layer has {side} x {side} cells; at least 3 x 3 are needed."
    return no_pictures(run, options)


def no_equimod(run: TrainedRun, options: Options) -> str | None:
    """EquiMod's measures are of its predictor, which reads the online encoder."""
    if not isinstance(run.experiment.learner.regularizer, EquiMod):
        return "only runs with EquiMod have a predictor to measure."
    if run.encoder_name != "online":
        return "EquiMod's predictor reads the online encoder: --encoder=online."
    return no_pictures(run, options)


def no_corruptions(run: TrainedRun, options: Options) -> str | None:
    """Corrupted pictures are published, or made at two sizes."""
    if why := no_labels(run, options):
        return why
    if options.corrupted is None:
        return _size(run, "--corrupted=DIR")
    train = run.data.train
    folder = pathlib.Path(options.corrupted).expanduser()
    try:
        open_corrupted(folder, run.data.num_classes, train.class_names)
    except (ValueError, OSError) as error:
        return str(error)
    return None


def no_perturbations(run: TrainedRun, options: Options) -> str | None:
    """Clips are published, or made at two sizes; a flip rate is over another's."""
    if why := no_labels(run, options):
        return why
    if options.perturbed is None and (why := _size(run, "--perturbed=DIR")):
        return why
    try:
        if options.perturbed is not None:
            open_perturbed(pathlib.Path(options.perturbed), run.data.train)
        normalizers = flip_normalizers(options)
    except (ValueError, OSError) as error:
        return str(error)
    if normalizers is not None and normalizers.keys() - set(PERTURBATIONS):
        return f"{options.flip_normalizers} names what is no perturbation."
    return None


def no_shifted(run: TrainedRun, options: Options) -> str | None:
    """Other sets are named, prepared and of the same classes."""
    if not options.shifted:
        return "name prepared data sets, --shifted=imagenet_v2,imagenet_r."
    if why := no_labels(run, options):
        return why
    try:
        for name in options.shifted:
            source = open_source(name, "test", run.data.data_dir)
            match_classes(source, run.data.train)
    except (ValueError, OSError) as error:
        return str(error)
    return None


def flip_normalizers(options: Options) -> dict[str, float] | None:
    """A reference network's flip probabilities by perturbation, if they are given.

    Args:
        options: `flip_normalizers`.

    Returns:
        What the file holds.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it holds anything else.
    """
    if options.flip_normalizers is None:
        return None
    path = pathlib.Path(options.flip_normalizers).expanduser()
    try:
        found = json.loads(path.read_text())
        return {name: float(value) for name, value in found.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{path} must hold a JSON object, perturbation -> flip probability of the "
            f"reference network: {error}."
        ) from error


def _size(run: TrainedRun, flag: str) -> str | None:
    if run.image_size in (32, 224):
        return None
    return (
        f"pictures can be generated at 32 and 224 px, this run reads {run.image_size} "
        f"px; give the published files, {flag}."
    )
