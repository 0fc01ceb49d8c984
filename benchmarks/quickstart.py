"""The picture on README: what the quickstart reaches, and what its tokens do.

    python -m ser_jax.sweep --config=configs/digits.py:simclr --grid='preset=none,ser' --seeds=0,1,2,3 --workdir=/tmp/quickstart --records=benchmarks/quickstart.jsonl --evaluate='--tasks=linear,layer_knn,equivariance'
    python benchmarks/quickstart.py

draws docs/quickstart.png from the sweep's records.
"""  # noqa: E501

import pathlib
import re
from collections.abc import Sequence

import numpy as np
from etils import epath
from matplotlib.axes import Axes

from ser_jax.evaluate.pictures import figures
from ser_jax.sweep.records import Record, read_records

ROOT = pathlib.Path(__file__).parents[1]
NAMES = {"preset=none": "SimCLR", "preset=ser": "SimCLR + SER"}
ROTATION = re.compile(r"eval/equivariance/layer_(\d+)/rotation/\d+/corrected")


def draw_accuracy(ax: Axes, records: Sequence[Record]) -> None:
    """A dot a seed: the encoders before and after training, and raw pixels."""
    pixels = records[0].values["knn_accuracy_pixels"]
    ax.axvline(pixels, color="0.5", linestyle=":", label=f"raw pixels, {pixels:.3f}")
    rows = []
    for color, (cell, name) in zip(figures.COLORS, NAMES.items(), strict=False):
        values = [record.values for record in records if record.cell == cell]
        for text, metric in (
            (f"{name}, untrained", "knn_accuracy_untrained"),
            (name, "knn_accuracy"),
        ):
            found = [value[metric] for value in values]
            ax.plot(found, [len(rows)] * len(found), "o", color=color, alpha=0.5)
            rows.append(f"{text}\n{np.mean(found):.3f}")
    ax.set_yticks(range(len(rows)), rows)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    figures.tidy(ax, "k-NN accuracy, held-out digits")
    ax.legend(fontsize=8, frameon=False, loc="lower left")


def draw_layers(ax: Axes, records: Sequence[Record]) -> None:
    """Equivariance to quarter turns over depth: a line a seed."""
    for color, (cell, name) in zip(figures.COLORS, NAMES.items(), strict=False):
        for number, record in enumerate(r for r in records if r.cell == cell):
            layers: dict[int, list[float]] = {}
            for key, value in record.values.items():
                if match := ROTATION.fullmatch(key):
                    layers.setdefault(int(match[1]), []).append(value)
            points = [(k, np.mean(layers[k])) for k in sorted(layers)]
            label = "_unnamed" if number else name
            ax.plot(*zip(*points, strict=True), color=color, marker="o", label=label)
    figures.tidy(ax, "equivariance to quarter turns")
    ax.set_xlabel("layer")
    ax.set_ylabel("token cosine, corrected for chance")
    ax.set_xticks(sorted(layers))
    ax.legend(fontsize=8, frameon=False)


def main() -> None:
    """Draws the picture."""
    records = [*read_records(epath.Path(ROOT / "benchmarks/quickstart.jsonl")).values()]
    figure = figures.Figure(figsize=(9.6, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    draw_accuracy(left, records)
    draw_layers(right, records)
    figures.save(figure, ROOT / "docs" / "quickstart.png")


if __name__ == "__main__":
    main()
