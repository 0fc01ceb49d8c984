"""Scripts as their linter sees them; the figures of docs/scaling.md as recorded."""

import json
import re
import shutil
import subprocess

import pytest
from helpers import ROOT

SCALING = (ROOT / "docs" / "scaling.md").read_text()
IMAGES = 100 * 1_281_167  # a hundred epochs of ImageNet
LINES = (ROOT / "benchmarks" / "tpu_compiler.jsonl").read_text().splitlines()


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="no shellcheck")
def test_shellcheck_has_nothing_to_say():
    scripts = [*(ROOT / "launch").glob("*.sh"), ROOT / "tests/launch/stand_ins/uv"]
    done = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True)
    assert not done.stdout and len(scripts) == 5


def recorded(topology, recipe):
    """Step times that the compiler gave, with what is chosen by itself."""
    rows = [json.loads(line) for line in LINES]
    return {
        (round(row["compiler_ms"], 1), row["batch_size"], row["num_devices"])
        for row in rows
        if (row["topology"], row["recipe"]) == (topology, recipe)
        and set(row["asked"].values()) == {"auto"}
        and row["fits"]
    }


def rows_of(pattern):
    found = re.findall(rf"^\| ({pattern}) \|(.*)\|$", SCALING, re.M)
    return [(name, [x.strip() for x in rest.split("|")]) for name, rest in found]


def check(row, topology, recipe, ms, images_per_s, hours, chip_hours):
    """Red if a figure is not that of a recorded step, to its last digit."""
    times = recorded(topology, recipe)
    (known,) = {time for time in times if time[0] == float(ms)} or {None}
    assert known, (row, times)
    _, batch_size, chips = known
    took_h = IMAGES / (batch_size / float(ms) * 1000) / 3600
    assert abs(took_h - float(hours)) <= 0.051
    assert abs(took_h * chips - float(chip_hours)) <= 0.6
    speed = float(images_per_s.replace(",", ""))
    assert abs(speed / (batch_size / float(ms) * 1000) - 1) < 0.005
    return speed


def test_costs_are_the_compilers():
    rows = rows_of(r"\w+:\w+")
    recipes = [row for row in rows if not row[0].startswith("v")]
    for recipe, figures in recipes:
        check(recipe, "v5e:2x4", recipe, *figures)
    assert len(recipes) > 10


def test_what_slices_need_follows_from_their_speed():
    rows = rows_of(r"v\d\w:\d+x\w+")
    for topology, (_, hosts, _, ms, speed, share, cores, *costs) in rows:
        images_per_s = check(topology, topology, "moco_v3:ser", ms, speed, *costs)
        assert round(images_per_s / int(hosts)) == float(share.replace(",", ""))
        assert round(images_per_s / int(hosts) / 681, 1) == float(cores)
    assert len(rows) == 6
