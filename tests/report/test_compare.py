"""Runs side by side: tables, curves, and what is refused."""

import json

import jax.numpy as jnp
import pytest
from helpers.programs import run_program
from matplotlib.figure import Figure

from ser_jax.report.compare import compare
from ser_jax.report.write import report
from ser_jax.storage import summary
from ser_jax.storage.checkpoint import Checkpointer
from ser_jax.storage.metrics import MetricWriter
from ser_jax.storage.runs import read_runs


def config(weight, **settings):
    return {"seed": 0, "regularizer": {"weight": weight}, **settings}


def write_metrics(path, losses, knn=(0.1, 0.5), **last):
    writer = MetricWriter(path)
    writer.write_scalars(0, {"knn_accuracy": knn[0]})
    for step, loss in enumerate(losses, start=1):
        writer.write_scalars(step, {"loss": loss, "loss_inv": loss, "loss_equiv": 0.0})
    writer.write_scalars(len(losses), {"knn_accuracy": knn[1], **last})
    writer.close()


def write_run(path, losses, config, **metrics):
    write_metrics(path, losses, **metrics)
    ended = {
        "steps": len(losses),
        "device": "1 x cpu",
        "accounting": {"views": "2 x 16", "flops_per_step": 123456789},
    }
    summary.write_summary(path, ended, config)


@pytest.fixture
def runs(tmp_path):
    write_run(tmp_path / "base", [3.0, 2.0, 1.0], config(0.0))
    write_run(
        tmp_path / "ser",
        [4.0, 3.0],
        config(0.5, crop=(0.08, 1.0)),
        knn=(0.1, 0.75),
        teacher_entropy=1.25,
    )
    return [str(tmp_path / name) for name in ("base", "ser")]


def compared(runs, tmp_path):
    report(runs, tmp_path / "page.html", tmp_path / "out")
    text = (tmp_path / "out" / "comparison.md").read_text()
    assert not text.endswith("\n\n")
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())["runs"]
    return text, found


@pytest.mark.slow
def test_report(runs, tmp_path):
    """Red if a column is another run's, or a setting that agrees is listed."""
    text, found = compared(runs, tmp_path)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    for row in (
        ["", "base", "ser"],
        ["step", "3", "2"],
        ["knn_accuracy", "0.5", "0.75"],
        ["knn_accuracy_untrained", "0.1", "0.1"],
        ["loss", "1", "3"],
        ["teacher_entropy", "-", "1.25"],
        ["device", "1 x cpu", "1 x cpu"],
        ["views", "2 x 16", "2 x 16"],
        ["flops_per_step", "123,456,789", "123,456,789"],
        ["regularizer.weight", "0", "0.5"],
        ["crop", "-", "(0.08, 1)"],
    ):
        assert row in cells
    assert not any(row[0] == "seed" for row in cells)
    assert len({len(row) for row in rows if row.startswith("| step")}) == 1
    assert "has not ended" not in text
    assert found["base"]["settings"] == {"crop": None, "regularizer.weight": 0.0}
    assert found["ser"]["results"]["knn_accuracy"] == 0.75
    assert found["ser"]["is_finished"] is True


def test_curves_overlay_the_runs(runs, tmp_path, monkeypatch):
    """Red if a run has no line of its own, or all-zero equivariance losses one."""
    figures = []
    monkeypatch.setattr(
        Figure,
        "savefig",
        lambda figure, *_, **__: figures.append(figure),
    )
    compare(read_runs(runs), tmp_path / "out")
    axes = {ax.get_title(loc="left"): ax for ax in figures[0].axes}
    assert list(axes) == [
        "k-NN accuracy, class token",
        "loss, total",
        "loss, invariance",
        "entropy of the teacher",
    ]
    base, ser = axes["loss, total"].lines
    assert base.get_xydata().tolist() == [[1, 3], [2, 2], [3, 1]]
    assert ser.get_xydata().tolist() == [[1, 4], [2, 3]]
    assert base.get_color() != ser.get_color()
    (entropy,) = axes["entropy of the teacher"].lines
    assert entropy.get_color() == ser.get_color()
    (legend,) = figures[0].legends
    assert [text.get_text() for text in legend.get_texts()] == ["base", "ser"]
    assert all(ax.get_legend() is None for ax in axes.values())


@pytest.mark.slow
def test_a_run_that_has_not_ended_gives_what_it_has(runs, tmp_path):
    """Red if it is refused, its state is not told, or its checkpoint's config lost."""
    write_metrics(tmp_path / "early", [2.5])
    write_metrics(tmp_path / "saved", [2.5, 2.25])
    with Checkpointer(tmp_path / "saved" / "checkpoints") as checkpointer:
        checkpointer.save(2, {"x": jnp.zeros(1)}, {"config": config(9.0)}, {})
    names = [str(tmp_path / name) for name in ("early", "saved")]
    text, found = compared([*runs, *names], tmp_path)
    assert (
        "- early has not ended: its values are those of step 1, and its settings are "
        "not known yet." in text
    )
    assert "- saved has not ended: its values are those of step 2.\n" in text
    assert found["early"]["results"]["loss"] == 2.5
    assert found["early"]["settings"]["regularizer.weight"] is None
    assert found["saved"]["settings"]["regularizer.weight"] == 9.0
    assert found["early"]["accounting"]["views"] is None


def test_a_run_that_goes_on_past_its_summary_has_not_ended(runs, tmp_path):
    """Red if an old summary passes for that of a run since continued."""
    write_metrics(tmp_path / "ser", [4.0, 3.0, 2.0])
    assert (
        "- ser has not ended: its values are those of step 3"
        in (compared(runs, tmp_path)[0])
    )


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path):
    """Red if a sweep's seed0 and seed0 become one column."""
    paths = [tmp_path / cell / "seed0" for cell in ("a", "b")]
    for path in paths:
        write_run(path, [1.0], config(0.0))
    runs = read_runs([str(path) for path in paths])
    assert [run.name for run in runs] == ["a/seed0", "b/seed0"]


@pytest.mark.parametrize(
    "names, message",
    [
        (
            ["base"],
            "side by side: expected the workdirs of two or more, got 1",
        ),
        (["base", "base/"], "base is given twice"),
        (["base", "nothing"], "nothing is no run: it does not exist"),
        (["base", "."], r"no metrics.jsonl.*Below it there are: .*base, .*ser"),
    ],
)
def test_refusals(runs, tmp_path, names, message):
    """Red if the message is lost, or files are written before it."""
    paths = [f"{tmp_path}/{name}" for name in names]
    with pytest.raises(ValueError, match=message):
        report(paths, tmp_path / "page.html", tmp_path / "out")
    assert not (tmp_path / "out").exists() and not (tmp_path / "page.html").exists()


@pytest.mark.slow
def test_command_line(runs, tmp_path):
    """Red if runs are not taken as arguments, or a mistake ends in a traceback."""

    done = run_program("ser_jax.report", *runs, "--markdown=side by side", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "| knn_accuracy " in done.stdout
    assert done.stdout.endswith(
        f"Written to {tmp_path}/side by side.\n"
        f"Written to {tmp_path}/side by side/report.html.\n"
    )
    assert {p.name for p in (tmp_path / "side by side").iterdir()} == {
        *("comparison.md", "comparison.json", "comparison.png", "report.html")
    }
    wrong = run_program("ser_jax.report", *runs, "--markdwon=x", cwd=tmp_path)
    assert wrong.returncode == 1 and "Traceback" not in wrong.stderr
    assert "Unknown command line flag 'markdwon'" in wrong.stderr


def test_the_program_of_before_says_what_it_is_called_now(runs, tmp_path):
    """Red if who types it is left with "No module named", or with a page of text."""
    done = run_program("ser_jax.compare", *runs, "--out=x", cwd=tmp_path)
    assert done.returncode == 1 and not done.stdout
    (line,) = done.stderr.splitlines()
    assert "python -m ser_jax.report A B --markdown=DIR" in line
