"""Sweeps: what is run, what is not run again, what is made of the seeds."""

import contextlib
import io
import json
import os
import shutil
import signal
import sys
import threading
import time

import pytest
from helpers import ROOT
from helpers.programs import run_program
from helpers.support import tiny_config, write_config

from ser_jax.storage import summary
from ser_jax.storage.metrics import MetricWriter
from ser_jax.sweep import runner as sweep_runner
from ser_jax.sweep.grid import expand, parse_grid
from ser_jax.sweep.runner import SweepStopped, sweep

pytestmark = pytest.mark.slow

WEIGHTS = "regularizer.weight=0.0,0.5"

# Stands for ser_jax.main: argv[1] names a file of configs by workdir.
PROGRAM = """
import json, pathlib, signal, sys, time
configs = json.loads(pathlib.Path(sys.argv[1]).read_text())
arguments = dict(argument[2:].split("=", 1) for argument in sys.argv[2:])
workdir = pathlib.Path(arguments["workdir"])
with pathlib.Path(sys.argv[1]).with_name("calls.txt").open("a") as calls:
    calls.write(f"{workdir.parent.name}/{workdir.name}\\n")
weight = float(arguments["config.regularizer.weight"])
if weight < 0:
    sys.exit("ser_jax: error: refused,\\nfor a reason\\n(--traceback shows where)")
if weight in (7.5, 7.3):
    sys.exit(75 if weight == 7.5 else 130)
if weight > 8:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    workdir.joinpath("waiting").touch()
    time.sleep(60)
knn = weight + int(arguments["config.seed"]) / 10
summary = {"steps": 6, "knn_accuracy": knn, "device": "1 x fake"}
summary["config"] = configs[str(workdir)]
workdir.joinpath("summary.json").write_text(json.dumps(summary))
"""


# Stands for ser_jax.evaluate.
EVALUATE = """
import json, pathlib, sys
arguments = dict(argument[2:].split("=", 1) for argument in sys.argv[1:])
if arguments["tasks"] == "none":
    sys.exit("ser_jax: error: no task is called none")
folder = pathlib.Path(arguments["checkpoint"]) / "eval" / "6-online"
folder.mkdir(parents=True)
tasks = {"knn": {"top1": 0.1 + len(arguments["tasks"])}, "linear": {"feature": "cls"}}
folder.joinpath("results.json").write_text(json.dumps({"tasks": tasks}))
"""


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    config = tiny_config(**{"max_steps": 6, "dataset.data_dir": str(folder)})
    return str(write_config(config, folder / "config.py"))


@pytest.fixture
def swept(config_file, tmp_path, monkeypatch):
    """Sweeps with the program above; gives the calls of it so far."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = (sys.executable, str(program), str(tmp_path / "configs.json"))
    monkeypatch.setattr(sweep_runner, "_PROGRAM", command)
    program = tmp_path / "evaluate.py"
    program.write_text(EVALUATE)
    monkeypatch.setattr(sweep_runner, "_EVALUATE", (sys.executable, str(program)))

    def run(grid, seeds, **options):
        folder = tmp_path / "sweep"
        with contextlib.suppress(ValueError):  # then the sweep is to refuse it too
            runs = expand(config_file, parse_grid(grid), seeds, folder)
            configs = {str(run.workdir): run.config for run in runs}
            (tmp_path / "configs.json").write_text(json.dumps(configs))
        try:
            sweep(config_file, grid, seeds, str(folder), **options)
        finally:
            calls = tmp_path / "calls.txt"
            run.calls = calls.read_text().split() if calls.exists() else []

    return run


@pytest.mark.parametrize(
    "grid, message",
    [
        ("regularizer.wieght=0,1", 'wieght=0: .*no such key.*mean "weight" instead'),
        ("batch_size=8,many", "cell batch_size=many: .*batch_size=many"),
        ("regularizer.layer=1,9", "cell regularizer.layer=9: layer 9 is not in 1..dep"),
        ("dataset.name=digits,digit", "cell dataset.name=digit: "),
        ("model.variant=Ti/4,Ti_4", "share the folder"),
    ],
)
def test_cells_are_refused_before_anything_runs(swept, grid, message):
    """Red if the first cell has run by the time the second is refused."""
    with pytest.raises(ValueError, match=message):
        swept(grid, [0])
    assert swept.calls == []


def test_a_metric_that_will_not_be_there_is_refused(tmp_path):
    config = tiny_config(**{"knn.every_epochs": 0.0})
    config.dataset.data_dir = str(tmp_path)
    path = write_config(config, tmp_path / "config.py")
    with pytest.raises(ValueError, match="no k-NN probe: set knn.every_epochs"):
        sweep(str(path), "", [0], str(tmp_path / "sweep"))


def test_runs_of_a_cell_become_mean_and_interval(swept, tmp_path):
    """Red if seeds mix between cells, or the report is not of the metric."""
    swept(WEIGHTS, [0, 1, 2], command="the command")
    assert swept.calls == [
        f"regularizer.weight={w}/seed{k}" for k in (0, 1, 2) for w in ("0.0", "0.5")
    ]
    report = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert report["command"] == "the command" and report["device"] == "1 x fake"
    first, second = report["metrics"]["knn_accuracy"]
    assert first["values"] == {"0": 0.0, "1": 0.1, "2": 0.2}
    assert first["mean"] == pytest.approx(0.1)
    assert second["mean"] == pytest.approx(0.6)
    # 0.1 standard deviation over root 3, times the t quantile of two degrees of freedom
    assert second["half_width"] == pytest.approx(0.1 / 3**0.5 * 4.302653, rel=1e-6)
    text = (tmp_path / "sweep" / "sweep.md").read_text()
    assert "| regularizer.weight=0.5 |  3/3 |" in text
    assert "0.35159 to 0.84841" in text
    assert (tmp_path / "sweep" / "sweep.png").stat().st_size > 10000


def test_finished_runs_are_not_run_again(swept, tmp_path):
    """Red if a finished run is repeated, or a new seed is not run."""
    swept(WEIGHTS, [0])
    assert "one run has no interval" in (tmp_path / "sweep" / "sweep.md").read_text()
    swept(WEIGHTS, [0, 1])
    assert swept.calls == [
        *("regularizer.weight=0.0/seed0", "regularizer.weight=0.5/seed0"),
        *("regularizer.weight=0.0/seed1", "regularizer.weight=0.5/seed1"),
    ]


def test_a_record_is_enough_to_go_on_from(swept, tmp_path):
    """Red if a run whose folder is lost is done again, or its seed is left out."""
    kept = tmp_path / "kept.jsonl"
    swept(WEIGHTS, [0, 1], records_file=kept)
    before = (tmp_path / "sweep" / "sweep.md").read_text()
    shutil.rmtree(tmp_path / "sweep")
    swept(WEIGHTS, [0, 1], records_file=kept)
    assert len(swept.calls) == 4 and len(kept.read_text().splitlines()) == 4
    assert (tmp_path / "sweep" / "sweep.md").read_text() == before
    with pytest.raises(ValueError, match="a record of regularizer.weight=0.0 seed 0 w"):
        swept(WEIGHTS, [0], records_file=kept, overrides=["--config.batch_size=32"])
    kept.write_text('{"cell": "a"}\n' + kept.read_text())
    with pytest.raises(ValueError, match="kept.jsonl, line 1, is no record"):
        swept(WEIGHTS, [0], records_file=kept)


def test_records_of_another_sweep_are_kept(swept, tmp_path, monkeypatch):
    """Red if a sweep writes only what it had read at its start, and its own."""
    kept, other = tmp_path / "kept.jsonl", tmp_path / "other.jsonl"
    swept("regularizer.weight=0.0", [5], records_file=other)
    record_of, lines = sweep_runner.record_of, other.read_text()

    def meanwhile(*arguments):
        kept.write_text(lines)
        return record_of(*arguments)

    monkeypatch.setattr(sweep_runner, "record_of", meanwhile)
    swept("regularizer.weight=0.0", [0], records_file=kept)
    seeds = [json.loads(line)["seed"] for line in kept.read_text().splitlines()]
    assert seeds == [5, 0]


def test_what_evaluation_finds_is_a_metric(swept, tmp_path):
    """Red if it is of another encoder's folder, or a run is trained again for it."""
    swept("regularizer.weight=0.5", [0])
    told = {"metrics": ["eval/knn/top1"], "evaluate": ["--tasks=knn"]}
    for _ in range(2):
        swept("regularizer.weight=0.5", [0], **told)
    assert len(swept.calls) == 1
    report = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert report["metrics"]["eval/knn/top1"][0]["values"] == {"0": 3.1}
    with pytest.raises(ChildProcessError, match=r"no task is called none \(see .*txt"):
        swept("regularizer.weight=0.5", [0], evaluate=["--tasks=none"])
    with pytest.raises(ValueError, match="--results=X is not for you to say"):
        swept("regularizer.weight=0.5", [0], evaluate=["--results=X"])


def test_runs_of_another_experiment_are_not_taken_for_ours(swept, config_file):
    """Red if a changed setting goes unnoticed, or runs of other lengths are mixed."""
    swept(WEIGHTS, [0])
    for override, message in (
        ("--config.batch_size=32", "batch_size: 16 -> 32"),
        ("--config.max_steps=5", "steps: 6 -> 5"),
    ):
        with pytest.raises(ValueError, match=message):
            swept(WEIGHTS, [0], overrides=[override])
    assert len(swept.calls) == 2


def test_a_run_that_fails_does_not_take_the_others_with_it(swept, tmp_path):
    """Red if the sweep stops there, or the run's own message is lost."""
    with pytest.raises(ChildProcessError) as error:
        swept("regularizer.weight=-1.0,0.5", [0])
    workdir = tmp_path / "sweep" / "regularizer.weight=-1.0" / "seed0"
    assert str(error.value) == (
        "1 of 2 runs failed; the same command tries them again:\n"
        f"  {workdir}: refused,\nfor a reason (see {workdir / 'output.txt'})"
    )
    text = (tmp_path / "sweep" / "sweep.md").read_text()
    assert "| regularizer.weight=-1.0 |  0/1 |" in text
    assert "| regularizer.weight=0.5  |  1/1 |" in text


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]
)
def test_a_signal_stops_the_run_and_the_sweep(swept, tmp_path, number):
    """Red if the run goes on, the next begins, or the report is not written."""
    waiting = tmp_path / "sweep" / "regularizer.weight=9.0" / "seed0" / "waiting"

    def interrupt():
        while not waiting.exists():
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    threading.Thread(target=interrupt, daemon=True).start()
    before = signal.getsignal(number)
    said = f"{number.name}, 1 of 3 runs finished"
    with pytest.raises(SweepStopped, match=said) as stopped:
        swept("regularizer.weight=0.5,9.0,1.0", [0])
    assert stopped.value.stopped_by == number.name
    assert swept.calls == [f"regularizer.weight={w}/seed0" for w in ("0.5", "9.0")]
    assert not (tmp_path / "sweep" / "regularizer.weight=1.0").exists()
    assert "1/1" in (tmp_path / "sweep" / "sweep.md").read_text()
    assert signal.getsignal(number) is before


def test_a_run_that_was_stopped_has_not_failed(swept, tmp_path):
    """Red if it counts as a failure of its setting, or stops the others."""
    said = "2 of 3 runs were stopped by a signal, saved: .*weight=7.5.*weight=7.3"
    with pytest.raises(SweepStopped, match=said):
        swept("regularizer.weight=7.5,7.3,1.0", [0])
    assert len(swept.calls) == 3
    text = (tmp_path / "sweep" / "sweep.md").read_text()
    assert "| regularizer.weight=7.5 |  0/1 |" in text
    assert "| regularizer.weight=1.0 |  1/1 |" in text


@pytest.mark.parametrize(
    "content",
    ["null", "[]", "", '{"steps": 6}', '{"steps": "6", "config": {}}', '{"config": 3}'],
)
def test_a_run_whose_summary_is_damaged_is_run_again(swept, tmp_path, content):
    swept("regularizer.weight=1.0", [0])
    (tmp_path / "sweep" / "records.jsonl").unlink()
    path = tmp_path / "sweep" / "regularizer.weight=1.0" / "seed0" / "summary.json"
    path.write_text(content)
    swept("regularizer.weight=1.0", [0])
    assert len(swept.calls) == 2 and '"steps": 6' in path.read_text()


def test_a_summary_of_no_experiment_is_named(swept, tmp_path):
    swept("regularizer.weight=1.0", [0])
    (tmp_path / "sweep" / "records.jsonl").unlink()
    path = tmp_path / "sweep" / "regularizer.weight=1.0" / "seed0" / "summary.json"
    path.write_text('{"steps": 6, "config": {"objective": 3}}')
    with pytest.raises(ValueError, match="summary.json: .* names no objective"):
        swept("regularizer.weight=1.0", [0])


def test_progress_counts_steps_of_all_runs(config_file, tmp_path):
    """Red if steps done before count as speed, or failed runs as work left."""
    runs = expand(config_file, parse_grid(WEIGHTS), [0, 1], tmp_path)
    step_of(runs[0], 2)  # before this sweep
    stream, now = io.StringIO(), [0.0]
    progress = sweep_runner.SweepProgress(runs, stream, lambda: now[0])
    progress.update(runs[0])
    step_of(runs[0], 6)
    now[0] = 40.0
    progress.update(runs[0])
    progress.give_up(runs[1], "failed: no")
    step_of(runs[2], 1)
    now[0] = 50.0
    progress.update(runs[2])  # too soon for another line
    now[0] = 100.0
    progress.update(runs[2])
    assert stream.getvalue().splitlines() == [
        "run 1/4: regularizer.weight=0.0 seed 0, step 2/6",
        # 4 steps in 40 s; of 24, 6 are done
        "run 1/4: regularizer.weight=0.0 seed 0, step 6/6, 0.1 steps/s, 3m 00s left",
        "regularizer.weight=0.0 seed 1 failed: no",
        # 5 in 100 s; of 18, 7 are done
        "run 3/4: regularizer.weight=0.5 seed 0, step 1/6, 0.05 steps/s, 3m 40s left",
    ]


def step_of(run, step):
    writer = MetricWriter(run.workdir)
    writer.write_scalars(step, {"loss": 1.0 / step})
    writer.close()


def test_end_to_end(tmp_path):
    """Two cells of the real program, two steps each."""
    config = tiny_config(
        objective="simclr",  # the least to compile
        regularizer="none",
        **{
            "max_steps": 2,
            "model.depth": 1,
            "knn.every_epochs": 0.0,
            "dataset.data_dir": str(tmp_path),
        },
    )
    path = write_config(config, tmp_path / "config.py")

    done = run_program(
        "ser_jax.sweep",
        *(f"--config={path}", "--grid=optimizer.base_lr=1e-3,2e-3", "--seeds=3"),
        *(f"--workdir={tmp_path / 'sweep'}", "--metric=loss_last"),
        cwd=ROOT,
        JAX_NUM_CPU_DEVICES="1",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2 runs, 0 of them done.\n")
    report = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    for cell in report["metrics"]["loss_last"]:
        workdir = tmp_path / "sweep" / cell["cell"] / "seed3"
        ended = summary.read_summary(workdir)
        assert cell["values"]["3"] == pytest.approx(ended["loss_last"], rel=1e-5)
        assert ended["config"]["seed"] == 3
        assert ended["accounting"]["views"] == "2 x 16"
