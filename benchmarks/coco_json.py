"""Time and memory to read annotations of COCO's size: `python benchmarks/coco_json.py`.

They are made up, as many and as long as those of train2017: 118,287 pictures, 860,001
boxes, outlines of 27 points on average, 515 MB. Nothing is downloaded. A process
of its own reads them, so that its peak is that of reading.
"""

import argparse
import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np
from PIL import Image

from ser_jax.evaluate.detection.coco import open_coco

_NUM_IMAGES, _NUM_BOXES, _NUM_CLASSES = 118_287, 860_001, 80
_POINTS = (3, 52)  # of an outline


def make(folder: pathlib.Path, num_images: int, num_boxes: int) -> None:
    """Writes annotations of a split `train2017`, and one of its pictures.

    Args:
        folder: Where.
        num_images: Pictures that are listed.
        num_boxes: Boxes on them.
    """
    rng = np.random.default_rng(0)
    (folder / "annotations").mkdir()
    (folder / "train2017").mkdir()
    images = [
        {
            "license": 3,
            "file_name": f"{i:012}.jpg",
            "coco_url": f"http://images.example.org/train2017/{i:012}.jpg",
            "height": 480,
            "width": 640,
            "date_captured": "2013-11-14 16:28:13",
            "flickr_url": f"http://farm9.example.org/8186/{i:012}_z.jpg",
            "id": i,
        }
        for i in range(1, num_images + 1)
    ]
    Image.new("RGB", (640, 480)).save(folder / "train2017" / images[0]["file_name"])
    classes = [{"id": i, "name": f"class {i}"} for i in range(1, _NUM_CLASSES + 1)]
    path = folder / "annotations" / "instances_train2017.json"
    with path.open("w") as file:
        file.write(f'{{"info": {{}}, "licenses": [], "images": {json.dumps(images)}, ')
        file.write(f'"categories": {json.dumps(classes)}, "annotations": [')
        for number in range(num_boxes):
            points = rng.uniform(0, 480, 2 * rng.integers(*_POINTS)).round(2)
            x, y, w, h = rng.uniform(1, 320, 4).round(2).tolist()
            one = {
                "segmentation": [points.tolist()],
                "area": round(w * h, 5),
                "iscrowd": 0,
                "image_id": int(rng.integers(1, num_images + 1)),
                "bbox": [x, y, w, min(h, 479 - y)],
                "category_id": int(rng.integers(1, _NUM_CLASSES + 1)),
                "id": number + 1,
            }
            file.write((", " if number else "") + json.dumps(one))
        file.write("]}")


def read(folder: str) -> None:
    """Reads them, once; prints figures as JSON.

    Args:
        folder: Where `make` wrote.
    """
    started = time.perf_counter()
    split, _ = open_coco(folder, "train2017", "train2017")
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    figures = {"images": len(split), "boxes": len(split.boxes), "read_s": seconds}
    print(json.dumps(figures | {"peak_bytes": peak}))


def main() -> None:
    """Makes the file, and has it read."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=_NUM_IMAGES)
    parser.add_argument("--boxes", type=int, default=_NUM_BOXES)
    parser.add_argument("--read", help=argparse.SUPPRESS)
    values = parser.parse_args()
    if values.read:
        read(values.read)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        make(folder, values.images, values.boxes)
        size = (folder / "annotations" / "instances_train2017.json").stat().st_size
        print(f"{size / 1e6:.0f} MB of JSON", file=sys.stderr)
        subprocess.run([sys.executable, __file__, "--read", name], check=True)


if __name__ == "__main__":
    main()
