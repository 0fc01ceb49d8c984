"""Tasks that classify other pictures with the linear head."""

import logging
from typing import Any

from ser_jax.data.sources import open_source
from ser_jax.evaluate.classify.classifier import Classify
from ser_jax.evaluate.classify.linear import classifier
from ser_jax.evaluate.obstacles import flip_normalizers
from ser_jax.evaluate.robustness.corruptions import evaluate_corruptions
from ser_jax.evaluate.robustness.perturbations import evaluate_perturbations
from ser_jax.evaluate.robustness.shifted import evaluate_shifted
from ser_jax.evaluate.run import TrainedRun
from ser_jax.evaluate.task import Options

_logger = logging.getLogger(__name__)


def corruptions(run: TrainedRun, options: Options) -> dict[str, Any]:
    """Errors on ImageNet-C, CIFAR-10-C or pictures corrupted here."""
    classify, head = _classify(run, options)
    return head | evaluate_corruptions(
        classify,
        run.data.held_out,
        run.transform,
        image_size=run.image_size,
        num_images=run.num_pictures,
        seed=run.seed,
        folder=options.corrupted,
        progress=_log,
    )


def perturbations(run: TrainedRun, options: Options) -> dict[str, Any]:
    """Flips of the prediction within clips, of ImageNet-P or made here."""
    classify, head = _classify(run, options)
    return head | evaluate_perturbations(
        classify,
        run.data.held_out,
        image_size=run.image_size,
        num_images=run.num_pictures,
        seed=run.seed,
        folder=options.perturbed,
        normalizers=flip_normalizers(options),
        progress=_log,
    )


def shifted(run: TrainedRun, options: Options) -> dict[str, Any]:
    """Accuracy on other sets of the same classes: ImageNet-V2, -R, -A, -Sketch."""
    classify, head = _classify(run, options)
    return head | {
        name: evaluate_shifted(
            classify,
            open_source(name, "test", run.data.data_dir),
            run.transform,
            train=run.data.train,
        )
        for name in options.shifted
    }


def _classify(run: TrainedRun, options: Options) -> tuple[Classify, dict[str, Any]]:
    """The classifier, and which it is."""
    head, feature = classifier(run, options)
    about = {"protocol": options.protocol, "feature": feature}
    return run.classifier(head, feature), {"head": about}


def _log(name: str, done: int, total: int) -> None:
    _logger.info("%s (pass %d of %d)", name, done + 1, total)
