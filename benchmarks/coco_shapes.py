"""Command line: a small set in COCO's format, of shapes on noise.

    python benchmarks/coco_shapes.py --folder=SHAPES

Disks, squares, triangles and rings, one to four a picture, of any colour on any ground:
what is to be told apart is the shape. For trying detection out without COCO.
"""

import json
import pathlib
from typing import Any

import cv2
import numpy as np
from absl import app, flags

_FOLDER = flags.DEFINE_string("folder", None, "Where it goes.", required=True)
_SIDE = flags.DEFINE_integer("side_px", 128, "Of the pictures.")
_NUM_TRAIN = flags.DEFINE_integer("num_train", 400, "Pictures to learn from.")
_NUM_EVAL = flags.DEFINE_integer("num_eval", 200, "Pictures to measure on.")

_SHAPES = ("disk", "square", "triangle", "ring")
_MOST_OVERLAP = 0.1  # of the smaller of two boxes


def main(argv: list[str]) -> None:
    """Writes both splits."""
    del argv
    folder = pathlib.Path(_FOLDER.value)
    for seed, (split, count) in enumerate(
        (("train2017", _NUM_TRAIN.value), ("val2017", _NUM_EVAL.value))
    ):
        write_split(folder, split, count, np.random.default_rng(seed))
    print(f"{folder}: {_NUM_TRAIN.value} and {_NUM_EVAL.value} pictures")


def write_split(
    folder: pathlib.Path, split: str, count: int, rng: np.random.Generator
) -> None:
    """Writes pictures and their boxes, as COCO is published."""
    for part in (split, "annotations"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id in range(1, count + 1):
        picture, found = make(rng, _SIDE.value)
        name = f"{image_id:06}.png"
        cv2.imwrite(str(folder / split / name), picture)
        side = {"height": _SIDE.value, "width": _SIDE.value}
        images.append({"id": image_id, "file_name": name, **side})
        for kind, (x, y, size) in found:
            box = {"bbox": [x, y, size, size], "area": size * size, "iscrowd": 0}
            keys = {"image_id": image_id, "category_id": kind + 1}
            annotations.append({"id": len(annotations) + 1, **keys, **box})
    names = [{"id": i + 1, "name": name} for i, name in enumerate(_SHAPES)]
    content = {"images": images, "annotations": annotations, "categories": names}
    path = folder / "annotations" / f"instances_{split}.json"
    path.write_text(json.dumps(content))


def make(
    rng: np.random.Generator, side: int
) -> tuple[np.ndarray, list[tuple[int, tuple[int, int, int]]]]:
    """A picture, and the kind and the square (x, y, side) of each shape on it."""
    coarse = rng.integers(40, 216, (6, 6, 3)).astype(np.float32)
    ground = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    noise = rng.normal(0, 12, ground.shape)
    picture = np.clip(ground + noise, 0, 255).astype(np.uint8)
    found: list[tuple[int, tuple[int, int, int]]] = []
    for _ in range(rng.integers(1, 5)):
        size = int(rng.integers(side // 6, side // 2))
        x, y = (int(v) for v in rng.integers(0, side - size, 2))
        if any(_overlap((x, y, size), other) > _MOST_OVERLAP for _, other in found):
            continue
        kind = int(rng.integers(len(_SHAPES)))
        draw(picture, kind, x, y, size, rng.integers(0, 256, 3).tolist())
        found.append((kind, (x, y, size)))
    return picture, found


def draw(picture: np.ndarray, kind: int, x: int, y: int, size: int, colour) -> None:
    """Draws a shape that fills its square."""
    middle, radius = (x + size // 2, y + size // 2), size // 2
    if _SHAPES[kind] == "disk":
        cv2.circle(picture, middle, radius, colour, -1)
    elif _SHAPES[kind] == "ring":
        width = max(2, size // 5)
        cv2.circle(picture, middle, radius - width // 2, colour, width)
    elif _SHAPES[kind] == "square":
        cv2.rectangle(picture, (x, y), (x + size - 1, y + size - 1), colour, -1)
    else:
        corners = [(x, y + size - 1), (x + size - 1, y + size - 1), (x + size // 2, y)]
        cv2.fillPoly(picture, [np.array(corners)], colour)


def _overlap(first: tuple[int, int, int], second: tuple[int, int, int]) -> float:
    (ax, ay, a), (bx, by, b) = first, second
    width = min(ax + a, bx + b) - max(ax, bx)
    height = min(ay + a, by + b) - max(ay, by)
    return max(0, width) * max(0, height) / min(a, b) ** 2


if __name__ == "__main__":
    app.run(main)
