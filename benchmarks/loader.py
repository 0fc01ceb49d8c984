"""What the loader costs, before and after: `python benchmarks/loader.py --before=REV`.

The pictures of `--pictures` are cut to 500 x 375 pixels (ImageNet's median), or as
`--width` and `--height` say, and prepared as a data set of one split. In every round
the loader of `--before`, a revision of this repository, and that of this checkout
read it in turn, each in a process of its own:

- crops: records of ArrayRecord files to batches of two crops of 224 pixels;
- constant: a transform that returns what it has returned before, two crops of 224
  pixels, of records in memory: what is left is the loader's own;
- small: the same with crops of 8 pixels, so that writing them takes no time either.

All count as many records as ImageNet, since the shuffling of few takes longer. CPU
time is that of all threads of the process, so that neighbours on a busy machine
count little; images a second are wall time.
"""

import argparse
import dataclasses
import datetime
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import grain
import numpy as np
from PIL import Image

from ser_jax.data.crops import CropSpec
from ser_jax.data.host_transforms import RandomCrops
from ser_jax.data.loader import train_loader
from ser_jax.data.sources import Source, open_source

ROOT = pathlib.Path(__file__).parents[1]
SIDES = ("before", "after")
_NUM_RECORDS = 1_281_167
_BATCH = 64
_NAME = "pictures"
_WARMUP = 12  # batches
_LABELS = {
    "crops_cpu_ms": "crops, ms of CPU an image",
    "crops_images_per_s": "crops, images/s by the clock",
    "constant_cpu_ms": "constant, ms of CPU an image",
    "constant_images_per_s": "constant, images/s by the clock",
    "small_cpu_ms": "small, ms of CPU an image",
    "small_images_per_s": "small, images/s by the clock",
}


def make_pictures(folder: pathlib.Path, to: pathlib.Path, size: tuple[int, int]) -> int:
    """Cuts pictures to one size, lying or standing; smaller ones are left out.

    Args:
        folder: Pictures, at any depth.
        to: Folder for JPEGs of quality 90.
        size: Long and short side, px.

    Returns:
        How many there are.
    """
    to.mkdir(parents=True)
    count = 0
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() == ".jpg"):
        with Image.open(path) as image:
            turned = image.height > image.width
            width, height = size[::-1] if turned else size
            scale = max(width / image.width, height / image.height)
            if scale > 1:
                continue
            left = (image.width - width / scale) / 2
            top = (image.height - height / scale) / 2
            box = (left, top, left + width / scale, top + height / scale)
            cut = image.convert("RGB").resize(
                (width, height), Image.Resampling.BICUBIC, box
            )
        cut.save(to / f"{count:05}.jpg", quality=90)
        count += 1
    return count


class Repeated(Sequence):
    """A few records as many."""

    def __init__(self, records: Sequence) -> None:
        """Reads none."""
        self._records = records

    def __len__(self) -> int:
        """How many there seem to be."""
        return _NUM_RECORDS

    def __getitem__(self, index: int) -> Any:
        """The record at a position."""
        return self._records[index % len(self._records)]


class Constant(grain.transforms.RandomMap):
    """The same arrays of every record."""

    def __init__(self, size_px: int) -> None:
        """Makes them."""
        crop = np.zeros((size_px, size_px, 3), np.uint8)
        params = np.zeros(7, np.float32)
        self._arrays = {
            "crops": {"a": crop, "b": crop},
            "crop_params": {"a": params, "b": params},
            "label": np.int64(0),
            "index": np.int64(0),
        }

    def random_map(self, element: object, rng: np.random.Generator) -> dict:
        """Them."""
        return self._arrays


def cost(
    source: Source, transform: grain.transforms.RandomMap, threads: int, batches: int
) -> tuple[float, float]:
    """CPU time of an image, ms, and images a second by the clock."""
    loader = train_loader(
        source,
        transform,
        batch_size=_BATCH,
        seed=0,
        num_threads=threads,
        prefetch_batches=4,
    )
    try:
        for batch in itertools.islice(loader, _WARMUP):
            assert len(batch["index"]) == _BATCH
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in itertools.islice(loader, batches):
            pass
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    finally:
        loader.close()
    images = batches * _BATCH
    return 1e3 * cpu / images, images / wall


def measure(data_dir: str, threads: int, batches: int) -> dict[str, float]:
    """The figures of the package that this process imports."""
    source = open_source(_NAME, "train", data_dir)
    constant = Source(_NAME, "train", None, {}, [{"image": b""}] * _NUM_RECORDS)
    # In a way that all revisions know.
    source = dataclasses.replace(source, records=Repeated(source.records))
    crops = RandomCrops((CropSpec("a", 224), CropSpec("b", 224)))
    crops_ms, crops_rate = cost(source, crops, threads, batches)
    own_ms, own_rate = cost(constant, Constant(224), threads, 8 * batches)
    small_ms, small_rate = cost(constant, Constant(8), threads, 8 * batches)
    return {
        "crops_cpu_ms": crops_ms,
        "crops_images_per_s": crops_rate,
        "constant_cpu_ms": own_ms,
        "constant_images_per_s": own_rate,
        "small_cpu_ms": small_ms,
        "small_images_per_s": small_rate,
    }


def measured_in(checkout: pathlib.Path, args: argparse.Namespace, data: str) -> dict:
    """The same, of the package in a checkout, in a process of its own."""
    own = [f"--data={data}", f"--threads={args.threads}", f"--batches={args.batches}"]
    done = subprocess.run(
        [sys.executable, __file__, *own],
        env=os.environ | {"PYTHONPATH": str(checkout)},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def check_out(revision: str, to: pathlib.Path) -> None:
    """Writes the package as it was at a revision."""
    archive = to.with_suffix(".tar")
    command = ["git", "archive", f"--output={archive}", revision, "ser_jax"]
    subprocess.run(command, cwd=ROOT, check=True)
    with tarfile.open(archive) as files:
        files.extractall(to, filter="data")


def table(rounds: list[dict[str, dict[str, float]]]) -> str:
    """Of all rounds the median and the best, and the median of their ratios."""
    lines = [
        "| | before, median (best) | after | ratio |",
        "|---|---:|---:|---:|",
    ]
    for name in rounds[0]["after"]:
        is_time = name.endswith("_ms")
        values = {side: [figures[side][name] for figures in rounds] for side in SIDES}
        pairs = list(zip(values["before"], values["after"], strict=True))
        ratios = [old / new if is_time else new / old for old, new in pairs]
        cells = [
            f"{_digits(statistics.median(of_side))} "
            f"({_digits(min(of_side) if is_time else max(of_side))})"
            for of_side in values.values()
        ]
        ratio = f"{statistics.median(ratios):.2f}"
        lines.append(f"| {_LABELS[name]} | {' | '.join([*cells, ratio])} |")
    return "\n".join(lines)


def _digits(value: float) -> str:
    return f"{value:.3f}" if value < 100 else f"{value:,.0f}"


def main() -> None:
    """Makes the data, takes turns, prints the table, writes the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", help="revision to compare with")
    parser.add_argument("--pictures", help="folder of photographs, JPEG")
    parser.add_argument("--width", type=int, default=500)
    parser.add_argument("--height", type=int, default=375)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batches", type=int, default=25, help="of 64, in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", help="file for the figures of all rounds")
    parser.add_argument("--data", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.data:
        print(json.dumps(measure(args.data, args.threads, args.batches)))
        return
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        size = (args.width, args.height)
        count = make_pictures(pathlib.Path(args.pictures), root / "pictures", size)
        prepare = [sys.executable, "-m", "ser_jax.data.prepare"]
        prepare += [f"--folder={root / 'pictures'}", f"--name={_NAME}"]
        subprocess.run(
            [*prepare, f"--data_dir={root}"], check=True, cwd=ROOT, stdout=sys.stderr
        )
        check_out(args.before, root / "before")
        rounds = []
        for number in range(args.rounds):
            print(f"round {number + 1} of {args.rounds}", file=sys.stderr)
            places = {"before": root / "before", "after": ROOT}
            rounds.append(
                {
                    side: measured_in(place, args, folder)
                    for side, place in places.items()
                }
            )
    what = f"{count} pictures of {args.width} x {args.height}, {args.threads} threads"
    print(f"{datetime.date.today()}, {what}, seed 0\n\n{table(rounds)}")
    if args.json:
        figures = {
            "command": " ".join(["python benchmarks/loader.py", *sys.argv[1:]]),
            "date": datetime.date.today().isoformat(),
            "cores": os.cpu_count(),
            "pictures": count,
            "seed": 0,
            "rounds": rounds,
        }
        pathlib.Path(args.json).write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
