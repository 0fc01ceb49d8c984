"""COCO's twelve figures of detections, by faster-coco-eval."""

import dataclasses
import importlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from ser_jax.storage.files import PathLike, write_text

FIGURES = (  # COCOeval's, in its order
    *("AP", "AP50", "AP75", "APs", "APm", "APl"),
    *("AR1", "AR10", "AR100", "ARs", "ARm", "ARl"),
)
_ABSENT = -1  # COCOeval's figure of what has no ground truth


@dataclasses.dataclass(frozen=True, eq=False)
class CocoMetrics:
    """How good detections are.

    Attributes:
        figures: Each of `FIGURES`, in [0, 1]; None where there is no ground truth.
        per_class: Class -> AP, in the order of COCO's ids; None as above.
        precision: At ten IoUs .5, .55, ... .95, 101 recalls 0, .01, ... 1 and each
            class, for objects of all sizes and 100 detections, `[10, 101, classes]`,
            float64; NaN for a class without ground truth.
    """

    figures: dict[str, float | None]
    per_class: dict[str, float | None]
    precision: np.ndarray


def missing() -> str | None:
    """Why detections cannot be measured: a package is not there.

    Returns:
        A sentence that says what to do; None if they can be.
    """
    try:
        importlib.import_module("faster_coco_eval")
    except ImportError as error:
        return (
            f"COCO's figures are computed by faster-coco-eval, which cannot be "
            f'imported ({error}): pip install -e ".[detection]".'
        )
    return None


def coco_metrics(
    ground_truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]]
) -> CocoMetrics:
    """COCOeval of boxes, with 1, 10 and 100 detections a picture and class.

    Args:
        ground_truth: A COCO json file's content: "images", "annotations", crowd boxes
            among them, and "categories". Ids of annotations are not read.
        detections: As `coco_detections` gives them.

    Returns:
        The figures.

    Raises:
        ImportError: If faster-coco-eval is not installed.

    Reference:
        COCO (arXiv 1405.0312) and its COCOeval.
    """
    if why := missing():
        raise ImportError(why)
    coco = importlib.import_module("faster_coco_eval")
    names = _class_names(ground_truth)
    # Copies, as their entries are written to; a match is marked by an id, 0 is none.
    annotations = [
        dict(box) | {"id": i} for i, box in enumerate(ground_truth["annotations"], 1)
    ]
    truth = coco.COCO(
        {**ground_truth, "annotations": annotations}, print_function=_say_nothing
    )
    found = truth.loadRes([dict(box) for box in detections])
    evaluated = coco.COCOeval_faster(
        truth, found, iouType="bbox", print_function=_say_nothing
    )
    evaluated.run()
    precision = evaluated.eval["precision"][:, :, :, 0, -1]  # all sizes, 100 detections
    return CocoMetrics(
        {k: _or_none(x) for k, x in zip(FIGURES, evaluated.stats, strict=True)},
        {k: _or_none(precision[..., i].mean()) for i, k in enumerate(names)},
        np.where(precision == _ABSENT, np.nan, precision),
    )


def over_seeds(by_seed: Mapping[int, CocoMetrics]) -> dict[str, Any]:
    """Figures of several heads as results have them.

    Args:
        by_seed: Seed of a head -> its figures, on the same ground truth.

    Returns:
        Each of `FIGURES` -> its mean over seeds, and "<figure>_std" -> the standard
        deviation of the sample, None of one seed; "per_class": class -> mean of AP;
        "seeds": seed -> figures. What has no ground truth is None.
    """
    several = list(by_seed.values())
    results: dict[str, Any] = {}
    for name in FIGURES:
        values = [of.figures[name] for of in several]
        results[name] = _mean(values)
        results[f"{name}_std"] = _std(values)
    classes = several[0].per_class
    results["per_class"] = {
        k: _mean([of.per_class[k] for of in several]) for k in classes
    }
    results["seeds"] = {str(seed): dict(of.figures) for seed, of in by_seed.items()}
    return results


def coco_detections(
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    *,
    image_ids: Sequence[int],
    scales: np.ndarray,
    sizes: np.ndarray,
    category_ids: Sequence[int],
) -> list[dict[str, Any]]:
    """Boxes found in letterboxed pictures, on the pictures, as COCO writes them.

    Args:
        boxes: x0, y0, x1, y1 in pixels of what the encoder was given, `[b, k, 4]`.
        scores: `[b, k]`, in [0, 1]; 0 where there is no box.
        labels: Places of their classes in `category_ids`, `[b, k]`, int.
        image_ids: Of the pictures, b of them.
        scales: From the pictures to what the encoder was given, `[b]`.
        sizes: Height and width of the pictures in pixels, `[b, 2]`; boxes are cut off
            there.
        category_ids: COCO's ids of the classes.

    Returns:
        "image_id", "category_id", "bbox" (x, y, width, height in pixels, two decimals)
        and "score" (five decimals) of each, by picture and falling score.

    Raises:
        FloatingPointError: If a box or score is not finite.
    """
    there = scores > 0
    if not (np.isfinite(scores).all() and np.isfinite(boxes[there]).all()):
        raise FloatingPointError(
            "the detector's boxes or scores are not all finite: its training has "
            "diverged. Give it a lower learning rate."
        )
    corners = boxes / np.asarray(scales, np.float64)[:, None, None]
    most = np.asarray(sizes)[:, None, ::-1]  # width, height
    low, high = (np.clip(x, 0, most) for x in (corners[..., :2], corners[..., 2:]))
    xywh = np.round(np.concatenate([low, high - low], axis=-1), 2)
    return [
        {
            "image_id": int(image_id),
            "category_id": int(category_ids[labels[i, j]]),
            "bbox": xywh[i, j].tolist(),
            "score": round(float(scores[i, j]), 5),
        }
        for i, image_id in enumerate(image_ids)
        for j in np.argsort(-scores[i], kind="stable")
        if there[i, j]
    ]


def write_detections(
    path: PathLike, detections: Sequence[Mapping[str, Any]]
) -> epath.Path:
    """Path of detections as a COCO json file, one a line.

    Args:
        path: The file; replaced as a whole.
        detections: As `coco_detections` gives them.

    Returns:
        The path.
    """
    lines = ",\n".join(json.dumps(box, allow_nan=False) for box in detections)
    return write_text(path, f"[\n{lines}\n]")


def _class_names(ground_truth: Mapping[str, Any]) -> list[str]:
    """Names in the order of ids; a name of several classes gets their ids."""
    classes = sorted(ground_truth["categories"], key=lambda c: c["id"])
    names = [str(c["name"]) for c in classes]
    return [
        name if names.count(name) == 1 else f"{name} {c['id']}"
        for name, c in zip(names, classes, strict=True)
    ]


def _say_nothing(*_: Any) -> None:
    """In place of the library's prints."""


def _or_none(figure: float) -> float | None:
    return None if figure == _ABSENT else float(figure)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [x for x in values if x is not None]
    return float(np.mean(known)) if known else None


def _std(values: Sequence[float | None]) -> float | None:
    known = [x for x in values if x is not None]
    return float(np.std(known, ddof=1)) if len(known) > 1 else None
