"""On more devices than b2 has images nothing but the place of its rows changes.

On 64, as no test's own process has. Which images are b2's, the losses and the gradients
are those of one device; what the devices send is the floor: the gradient once, the
embeddings that all images are compared with, statistics and b2's keys, each once; no
picture.
"""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from helpers.many_devices import B2
from helpers.support import program_env

from ser_jax.methods.objectives import OBJECTIVES
from ser_jax.methods.regularizers import REGULARIZERS

pytestmark = pytest.mark.slow
MOST = 1.3  # times the base's bytes, with SER

# What may be sent: in which part of the step, by what, as what. All is float64 for
# float32, so that rounding, which an optimizer enlarges, explains no difference.
FLOOR = (
    ("student, backward", "all-reduce", "f64"),  # the gradient, once
    ("objective, forward", "all-gather", "f64"),  # embeddings
    ("objective, forward", "all-to-all", "f64"),
    ("objective, forward", "all-reduce", "f64"),  # statistics and means
    ("objective, backward", "all-reduce", "f64"),
    ("objective, backward", "all-to-all", "f64"),
    ("objective, backward", "all-gather", "f64"),
    ("regularizer, forward", "all-gather", "f64"),  # its keys
    ("regularizer, forward", "all-to-all", "f64"),  # without padding
    ("regularizer, backward", "all-reduce", "f64"),
)
SMALL = 2048  # bytes: scalars, elements, which slots are filled
# Of b2's two views, each once, and a bit for what is small: keys, moved and not, in 24
# slots of 16 numbers.
MOST_OF = {"regularizer, forward": 1.2 * 2 * B2 * 2 * 24 * 16 * 8}


def pytest_generate_tests(metafunc):
    if "pair" in metafunc.fixturenames:
        everything = metafunc.config.getoption("release")
        pairs = [(o, r) for o in OBJECTIVES for r in REGULARIZERS]
        pairs = pairs if everything else [("moco_v3", "ser")]
        metafunc.parametrize("pair", pairs, ids="-".join)


def found_on(pair, numbers):
    done = subprocess.run(
        [sys.executable, "-m", "helpers.many_devices", *pair, *numbers],
        env=program_env(num_devices=64) | {"JAX_ENABLE_X64": "1"},
        cwd=pathlib.Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def num_bytes(sent):
    return sum(row["wire_bytes"] for row in sent)


def test_64_devices_do_what_one_does_and_send_what_must_be_sent(pair, release):
    """One test, since its programs are dear. Eight and sixteen too, for a release."""
    numbers = ("1", "8", "16", "64") if release else ("1", "64")
    found = found_on(pair, numbers)
    for number in numbers[1:]:
        for mine, its in zip(
            found["1"]["metrics"], found[number]["metrics"], strict=True
        ):
            assert mine.keys() == its.keys()
            for name, value in mine.items():
                np.testing.assert_allclose(
                    its[name], value, rtol=1e-9, atol=1e-12, err_msg=f"{number} {name}"
                )
        for part, (length, along) in found["1"]["moved"].items():
            its_length, its_along = found[number]["moved"][part]
            assert length > 0
            assert abs(its_length - length) <= 1e-9 * length, (number, part)
            assert abs(its_along - along) <= 1e-9 * length, (number, part)
    sent = found["64"]["sent"]
    for row in sent:
        kind = row["shape"].lstrip("(").partition("[")[0]
        is_floor = (row["part"], row["kind"], kind) in FLOOR
        assert is_floor or row["wire_bytes"] <= SMALL, row
    gradients = [row for row in sent if row["part"] == "student, backward"]
    assert sum(row["wire_bytes"] > SMALL for row in gradients) == 1
    for part, most in MOST_OF.items():
        of_part = [row for row in sent if row["part"] == part]
        assert num_bytes(of_part) <= most, of_part
    if pair[1] == "ser":  # others have weights of their own, as many as this encoder
        assert num_bytes(sent) <= MOST * num_bytes(found["base"]["sent"])
