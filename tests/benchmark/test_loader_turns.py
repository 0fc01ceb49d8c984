"""The loader before and after: pictures of one size, medians, best and ratios."""

import runpy

import numpy as np
import pytest
from helpers import ROOT
from PIL import Image


@pytest.fixture(scope="module")
def script():
    """Names of `benchmarks/loader.py`."""
    return runpy.run_path(str(ROOT / "benchmarks" / "loader.py"))


def test_pictures_are_cut_to_one_size_lying_or_standing(script, tmp_path):
    sizes = [(640, 480), (300, 700), (499, 900), (374, 499)]  # the last is too small
    for number, (width, height) in enumerate(sizes):
        image = Image.new("RGB", (width, height))
        image.save(tmp_path / f"{number}.jpg")
    made = tmp_path / "made"
    assert script["make_pictures"](tmp_path, made, (250, 200)) == 4
    assert script["make_pictures"](tmp_path, tmp_path / "large", (500, 375)) == 2
    found = [Image.open(path).size for path in sorted(made.glob("*.jpg"))]
    assert found == [(250, 200), (200, 250), (200, 250), (200, 250)]


def test_the_table_has_median_best_and_the_median_of_ratios(script):
    times, rates = (
        [(3.0, 2.0), (4.0, 2.0), (9.0, 1.0)],
        [(100, 150), (50, 100), (10, 5)],
    )
    rounds = [
        {
            side: {"crops_cpu_ms": time[k], "crops_images_per_s": rate[k]}
            for k, side in enumerate(script["SIDES"])
        }
        for time, rate in zip(times, rates, strict=True)
    ]
    lines = script["table"](rounds).splitlines()
    assert lines[2].endswith("| 4.000 (3.000) | 2.000 (1.000) | 2.00 |")
    assert lines[3].endswith("| 50.000 (100) | 100 (150) | 1.50 |")


def test_what_constants_cost_is_measured(script):
    records = [{"image": b""}] * 100
    source = script["Source"]("none", "train", None, {}, records)
    cpu_ms, rate = script["cost"](source, script["Constant"](4), 2, 2)
    assert np.isfinite([cpu_ms, rate]).all() and cpu_ms > 0 and rate > 0
