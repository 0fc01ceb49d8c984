"""Reference runs are written from whole runs of one recipe, and from no others."""

import runpy

import pytest
from helpers import ROOT
from helpers.references import recorded_lines, write_run

import ser_jax
from ser_jax.report.reference import read_reference

COMMAND = "python -m ser_jax.main --config=configs/some.py"


@pytest.fixture(scope="module")
def write_reference():
    """That of `benchmarks/reference.py`."""
    return runpy.run_path(str(ROOT / "benchmarks" / "reference.py"))["write_reference"]


@pytest.fixture(scope="module")
def config():
    from helpers.reference_runs import config_of  # few tests need what it imports

    return config_of(0, 1.0, 1.0)


@pytest.fixture
def runs(tmp_path):
    lines = recorded_lines()[:3]
    return [write_run(tmp_path / f"seed{line['seed']}", line) for line in lines]


def test_a_line_says_what_was_trained(write_reference, config, runs, tmp_path):
    out = tmp_path / "new" / "some.jsonl"
    device = "2 cores"
    assert write_reference(runs, config, COMMAND, out, device) == out
    written = read_reference(out)
    first = written.lines[1]
    assert first["command"] == f"{COMMAND} --config.seed=1 --workdir=RUN"
    assert (first["seed"], first["steps"], first["device"]) == (1, 120, device)
    assert first["versions"]["ser_jax"].startswith(f"{ser_jax.__version__} (")
    assert written.seeds[0].keys() == recorded_lines()[0]["curves"].keys()


def test_runs_that_make_no_reference(write_reference, config, runs, tmp_path):
    out = tmp_path / "some.jsonl"
    lines = recorded_lines()
    fast = write_run(tmp_path / "fast", lines[3], **{"optimizer.base_lr": 0.3})
    early = write_run(tmp_path / "early", lines[3], last_step=60)
    short = write_run(tmp_path / "short", lines[3], max_steps=120)
    again = write_run(tmp_path / "again", lines[0])
    for chosen, said in (
        ([*runs, fast], r"fast was not .* it has optimizer.base_lr 0.3 \(there 0.03"),
        ([*runs, early], r"early has not ended \(step 60\)"),
        ([*runs, short], "short has not ended"),
        ([*runs, again], "seeds 0, 1, 2, 0"),
        (runs[:2], "expected 3 or more runs"),
    ):
        with pytest.raises(ValueError, match=said):
            write_reference(chosen, config, COMMAND, out)
    assert not out.exists()
