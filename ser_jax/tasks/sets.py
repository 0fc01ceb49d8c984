"""Tasks that classify other pictures with the linear head."""

import json
import logging
import pathlib
import sys
from typing import Any

from ser_jax.data.sources import open_source
from ser_jax.evals.classifier import Classify
from ser_jax.evals.corruption_sets import evaluate_corruptions
from ser_jax.evals.perturbation_sets import evaluate_perturbations
from ser_jax.evals.shifted_sets import evaluate_shifted
from ser_jax.tasks.features import classifier
from ser_jax.tasks.task import Options
from ser_jax.trained_run import TrainedRun

_logger = logging.getLogger(__name__)


def corruptions(run: TrainedRun, options: Options) -> dict[str, Any]:
    """Errors on ImageNet-C, CIFAR-10-C or pictures corrupted here."""
    return evaluate_corruptions(
        _classify(run, options),
        run.sources["eval"],
        run.transform,
        image_size=run.image_size,
        num_images=_num_images(run, options.corrupted),
        seed=run.seed,
        folder=options.corrupted,
        progress=_log,
    )


def perturbations(run: TrainedRun, options: Options) -> dict[str, Any]:
    """Flips of the prediction within clips, of ImageNet-P or made here."""
    return evaluate_perturbations(
        _classify(run, options),
        run.sources["eval"],
        image_size=run.image_size,
        num_images=_num_images(run, options.perturbed),
        seed=run.seed,
        folder=options.perturbed,
        normalizers=_normalizers(options.flip_normalizers),
        progress=_log,
    )


def shifted(run: TrainedRun, options: Options) -> dict[str, Any]:
    """Accuracy on other sets of the same classes: ImageNet-V2, -R, -A, -Sketch."""
    classify = _classify(run, options)
    data_dir = run.experiment.config.dataset.data_dir
    return {
        name: evaluate_shifted(
            classify,
            open_source(name, "test", data_dir),
            run.transform,
            train=run.sources["train"],
        )
        for name in options.shifted
    }


def corruptions_obstacle(run: TrainedRun, options: Options) -> str | None:
    """Why errors cannot be measured: no files, and none can be made of this size."""
    return _obstacle(run, options.corrupted, "--corrupted=DIR")


def perturbations_obstacle(run: TrainedRun, options: Options) -> str | None:
    """Why flips cannot be measured: no clips, and none can be made of this size."""
    return _obstacle(run, options.perturbed, "--perturbed=DIR")


def shifted_obstacle(run: TrainedRun, options: Options) -> str | None:
    """Why there is nothing to classify: no set is named."""
    del run
    if options.shifted:
        return None
    return "name prepared data sets, --shifted=imagenet_v2,imagenet_r,imagenet_sketch."


def _obstacle(run: TrainedRun, folder: str | None, flag: str) -> str | None:
    if folder is not None or run.image_size in (32, 224):
        return None
    return (
        f"pictures can be generated at 32 and 224 px, this run reads {run.image_size} "
        f"px; give the published files, {flag}."
    )


def _num_images(run: TrainedRun, folder: str | None) -> int:
    """Published sets are evaluated whole: a part of them compares with nothing."""
    return run.num_pictures if folder is None else sys.maxsize


def _normalizers(path: str | None) -> dict[str, float] | None:
    if path is None:
        return None
    try:
        return {
            name: float(value)
            for name, value in json.loads(pathlib.Path(path).read_text()).items()
        }
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{path} must hold a JSON object, perturbation -> flip probability of the "
            f"reference network: {error}."
        ) from error


def _classify(run: TrainedRun, options: Options) -> Classify:
    head, feature = classifier(run, options)
    return run.classifier(head, feature)


def _log(name: str, done: int, total: int) -> None:
    _logger.info("%s (pass %d of %d)", name, done + 1, total)
