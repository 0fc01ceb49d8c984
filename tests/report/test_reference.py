"""Runs against reference runs: real curves, files, and what is refused.

The curves are of `tests/helpers/reference_runs.py`, which says how to make them anew.
"""

import copy
import json

import numpy as np
import pytest
from helpers import ROOT
from helpers.references import FOLDER, recorded_lines, write_run

from ser_jax.report import against, reference
from ser_jax.report.curves import compared_metrics
from ser_jax.report.reference import (
    nearest,
    read_reference,
    read_references,
    recipe_of,
    text_of,
)
from ser_jax.report.spread import compare
from ser_jax.report.write import report
from ser_jax.storage.files import read_json, write_text
from ser_jax.storage.runs import read_runs

RECIPE = FOLDER / "digits_tiny.jsonl"
OTHERS = read_json(FOLDER / "others.json")


@pytest.fixture(scope="module")
def tiny():
    return read_reference(RECIPE)


@pytest.fixture
def lines():
    return recorded_lines()


@pytest.fixture
def here(monkeypatch):
    """The reference runs of these tests, for those of the repository."""
    monkeypatch.setattr(against, "read_references", lambda: read_references(FOLDER))


def held(path):
    (found,) = against.hold_against(read_runs([path]))
    return found


def left(found):
    """Metrics that leave the spread."""
    return {name for name, of in found.windows.items() if of.is_outside.any()}


def left_out(of):
    """Each seed's windows against the other seeds."""
    for i, run in enumerate(of.seeds):
        others = [*of.seeds[:i], *of.seeds[i + 1 :]]
        yield compare(run, others, compared_metrics(), of.num_steps)


def test_every_seed_is_within_the_others(tiny):
    for windows in left_out(tiny):
        assert {"loss", "loss_equiv", "knn_accuracy", "rankme"} <= windows.keys()
        assert not any(of.is_outside.any() for of in windows.values())


def test_another_seed_is_normal(tmp_path, here):
    found = held(write_run(tmp_path / "run", OTHERS["another_seed"]))
    assert not left(found) and not found.changed
    text = found.verdict()
    assert text.startswith(
        "run is within the spread of the reference runs (digits_tiny"
    )
    assert text.endswith(f") in all {len(found.windows)} metrics.")


def test_ten_times_the_learning_rate_is_told_apart(tmp_path, here):
    found = held(write_run(tmp_path / "run", OTHERS["rate_times_10"]))
    assert left(found) & {"loss", "knn_accuracy", "rankme", "cls_std"}
    assert found.changed == {"optimizer.base_lr": (0.03, 0.3)}
    assert "outside the spread" in found.verdict()
    assert "optimizer.base_lr 0.3 (there 0.03)" in found.verdict()


def test_a_term_of_weight_0_is_told_apart(tmp_path, here):
    found = held(write_run(tmp_path / "run", OTHERS["no_term"]))
    assert "loss_equiv" in left(found)
    assert "regularizer.weight 0 (there 1)" in found.verdict()


def test_a_collapsed_run_is_told_apart(tmp_path, here):
    found = held(write_run(tmp_path / "run", OTHERS["rate_times_100"]))
    assert left(found) >= {"loss", "knn_accuracy"}


def test_a_run_that_has_not_ended_is_compared_so_far(tmp_path, here):
    found = held(write_run(tmp_path / "run", OTHERS["another_seed"], last_step=40))
    assert not left(found)
    assert found.verdict().startswith("run, at step 40, is within the spread")
    assert all(found.steps(of).max() <= 40 for of in found.windows.values())


def test_a_run_of_another_length_is_compared_by_share(tmp_path, here, lines):
    longer = copy.deepcopy(lines[0])
    for points in longer["curves"].values():
        for point in points:
            point[0] *= 3
    longer |= {"steps": 3 * longer["steps"]}
    epochs = 3 * longer["config"]["total_epochs"]
    found = held(write_run(tmp_path / "run", longer, total_epochs=epochs))
    assert not left(found) and found.num_steps == pytest.approx(longer["steps"])
    assert list(found.changed) == ["total_epochs"]
    batch = lines[0]["config"]["batch_size"] // 2
    found = held(write_run(tmp_path / "half", lines[0], batch_size=batch))
    assert found.num_steps == 2 * lines[0]["steps"]
    assert all(of.shares.max() <= 0.5 for of in found.windows.values())


def test_what_changes_no_curve_does_not_count(tmp_path, tiny):
    run = write_run(
        tmp_path / "run",
        OTHERS["another_seed"],
        **{"loader.num_threads": 99, "dataset.data_dir": "/there", "seed": 77},
        **{"log_every_steps": 7, "checkpoint.every_steps": 3, "knn.every_epochs": 9.0},
    )
    assert nearest(*read_runs([run]), [tiny]) == (tiny, {})
    run = write_run(
        tmp_path / "other", OTHERS["another_seed"], **{"knn.temperature": 1}
    )
    assert list(nearest(*read_runs([run]), [tiny])[1]) == ["knn.temperature"]


def test_the_nearest_is_taken_and_another_kind_refused(tmp_path, lines):
    folder = tmp_path / "references"
    for name, rate in (("low", 0.01), ("high", 0.1)):
        for line in lines:
            line["config"]["optimizer.base_lr"] = rate
        folder.mkdir(exist_ok=True)
        write_text(folder / f"{name}.jsonl", text_of(lines))
    references = read_references(folder)
    run = write_run(tmp_path / "run", lines[0])  # has the rate of "high"
    found, changed = nearest(*read_runs([run]), references)
    assert found.name == "high" and not changed
    other = {"objective.name": "byol"}
    run = write_run(tmp_path / "other", lines[0], **other)
    with pytest.raises(ValueError, match="no reference runs of byol, ser, digits") as e:
        nearest(*read_runs([run]), references)
    assert (
        "There are: high, low. The run differs from the nearest, high, in objective"
        in str(e.value)
    )
    assert "objective.name byol (there simclr)" in str(e.value)


@pytest.mark.slow
def test_report_has_verdict_table_and_picture(tmp_path, here, figures):
    run = write_run(tmp_path / "fast", OTHERS["rate_times_10"])
    page = report([run], tmp_path / "out" / "page.html", reference=True)
    html, text = page.read_text(), (page.parent / "reference.md").read_text()
    for part in ("fast is outside the spread", "0.3 (there 0.03)", "a further seed"):
        assert part in html and part in text
    assert "Against reference runs" in html
    assert (page.parent / "reference_fast.png").read_bytes()
    (ax,) = (a for a in figures[0].axes if a.get_title(loc="left") == "loss")
    found = held(run)
    windows, steps = found.windows["loss"], found.steps(found.windows["loss"])
    lines = {line.get_label(): line.get_xydata() for line in ax.lines}
    np.testing.assert_allclose(lines["run"], np.stack([steps, windows.run], axis=1))
    mean = windows.seeds.mean(axis=0)
    np.testing.assert_allclose(lines["their mean"], np.stack([steps, mean], axis=1))
    (red,) = (line for line in ax.lines if line.get_color() == "#c81e1e")
    np.testing.assert_array_equal(red.get_ydata(), windows.run[windows.is_outside])


def test_refusals_come_before_anything_is_written(tmp_path, here, monkeypatch):
    run = write_run(tmp_path / "run", OTHERS["another_seed"])
    (run / "summary.json").unlink()
    with pytest.raises(ValueError, match="is not known yet: its first checkpoint"):
        report([run], reference=True)
    monkeypatch.setattr(against, "read_references", lambda: read_references(tmp_path))
    run = write_run(tmp_path / "whole", OTHERS["another_seed"])
    with pytest.raises(ValueError, match="there are no reference runs in"):
        report([run], reference=True)
    assert not list(tmp_path.glob("*/*.html")) + list(tmp_path.glob("*/*.md"))


def damaged(lines, how):
    if how == "two of a seed":
        lines[1]["seed"] = lines[0]["seed"]
    elif how == "two runs":
        del lines[2:]
    elif how == "another recipe":
        lines[2]["config"]["optimizer.base_lr"] = 1.0
    elif how == "another length":
        lines[2]["steps"] = 7
    elif how == "no curve":
        lines[1]["curves"]["loss"][3][0] = 0
    elif how == "no number":
        lines[1]["curves"]["loss"][3][1] = "much"
    elif how == "no config":
        del lines[1]["config"]
    return lines


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("two of a seed", "each of another seed, got seeds 0, 0, 2, 3, 4"),
        ("two runs", "expected 3 or more runs"),
        (
            "another recipe",
            r"seed 2 is of another recipe .* optimizer.base_lr 1 \(there",
        ),
        ("another length", "seed 2 is of another recipe .* steps 7"),
        ("no curve", r"line 2, is no reference run: loss is no list of \[step, value"),
        ("no number", r"line 2, is no reference run: loss is no list of \[step, value"),
        ("no config", "line 2, is no reference run: config is None, no dict"),
    ],
)
def test_files_that_are_no_reference(lines, tmp_path, how, said):
    path = tmp_path / "some.jsonl"
    lines = damaged(lines, how)
    path.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(ValueError, match=said):
        read_reference(path)
    with pytest.raises(ValueError):
        text_of(lines)


def test_what_is_read_is_what_was_written(tmp_path, lines, tiny):
    path = write_text(tmp_path / "digits_tiny.jsonl", text_of(lines))
    again = read_reference(path)
    assert again.settings == tiny.settings and again.lines == tiny.lines
    for ours, theirs in zip(again.seeds, tiny.seeds, strict=True):
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name])
    (run,) = read_runs([write_run(tmp_path / "run", lines[0])])
    assert recipe_of(run) == tiny.settings
    assert reference.FOLDER == ROOT / "benchmarks" / "reference"
