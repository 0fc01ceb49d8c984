"""Small sets in COCO's format, made on the spot: coloured rectangles on grey."""

import io
import json
import pathlib
from typing import Any

import numpy as np
from PIL import Image

COLOURS = {1: (220, 30, 30), 3: (30, 200, 30), 90: (30, 30, 220)}
CLASSES = {1: "red", 3: "green", 90: "blue"}  # ids with gaps, as COCO's


def encode(image: np.ndarray, kind: str = "PNG", mode: str = "RGB") -> bytes:
    """The picture as a file's bytes."""
    stream = io.BytesIO()
    palette = Image.Palette.ADAPTIVE  # of mode "P"
    Image.fromarray(image).convert(mode, palette=palette).save(stream, kind)
    return stream.getvalue()


def paint(height: int, width: int, boxes, classes) -> np.ndarray:
    """Rectangles of their classes' colours, `[h, w, 3]` uint8."""
    image = np.full((height, width, 3), 128, np.uint8)
    for (x, y, w, h), key in zip(boxes, classes, strict=True):
        image[y : y + h, x : x + w] = COLOURS[key]
    return image


def shapes(num: int, seed: int = 0, side: int = 64) -> list[dict[str, Any]]:
    """Pictures of one to three rectangles: `image`, `boxes`, `classes`."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(num):
        height, width = rng.integers(side // 2, side + 1, 2)
        count = rng.integers(1, 4)
        sizes = rng.integers(side // 8, side // 3, (count, 2))
        corners = [rng.integers(0, [width - w, height - h]) for w, h in sizes]
        boxes = np.concatenate([corners, sizes], axis=1).tolist()
        classes = rng.choice(list(CLASSES), count).tolist()
        image = paint(int(height), int(width), boxes, classes)
        made.append({"image": image, "boxes": boxes, "classes": classes})
    return made


def content(made, first_id: int = 1, classes=None) -> dict[str, Any]:
    """What COCO's json says of such pictures; their files are `<id>.png`."""
    images, annotations = [], []
    for image_id, one in enumerate(made, first_id):
        height, width = one["image"].shape[:2]
        images.append(
            {
                "id": image_id,
                "file_name": f"{image_id}.png",
                "height": height,
                "width": width,
            }
        )
        for (x, y, w, h), key in zip(one["boxes"], one["classes"], strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": key,
                    "bbox": [x, y, w, h],
                    "area": 0.8 * w * h,
                    "iscrowd": 0,
                    "segmentation": [[x, y, x + w, y, x + w, y + h]],
                }
            )
    named = (classes or CLASSES).items()
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": key, "name": name} for key, name in named],
    }


def write_split(folder, name: str, made, said: dict[str, Any] | None = None) -> None:
    """Writes a split as COCO is published; `said`: what its json holds instead."""
    folder = pathlib.Path(folder)
    said = content(made) if said is None else said
    for part in ("annotations", name):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for image_id, one in enumerate(made, 1):
        (folder / name / f"{image_id}.png").write_bytes(encode(one["image"]))
    path = folder / "annotations" / f"instances_{name}.json"
    path.write_text(json.dumps(said))


def write_set(folder, num_train: int = 6, num_eval: int = 4, side: int = 64) -> None:
    """Writes splits train2017 and val2017 of such pictures."""
    write_split(folder, "train2017", shapes(num_train, 0, side))
    write_split(folder, "val2017", shapes(num_eval, 1, side))
