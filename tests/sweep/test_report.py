"""What is made of a sweep's runs: intervals, other metrics, plots."""

import numpy as np
import pytest
from helpers.support import tiny_config, write_config
from matplotlib.figure import Figure

from ser_jax.storage import summary
from ser_jax.storage.metrics import MetricWriter
from ser_jax.sweep.grid import SweepRun, expand
from ser_jax.sweep.layers import by_layer, layers_picture
from ser_jax.sweep.records import Record, record_of
from ser_jax.sweep.report import (
    CellResult,
    Interval,
    collect,
    t_interval,
    write_report,
)

NO_INTERVAL = Interval(None, None)


def test_t_interval():
    """Red if the deviation is the population's, or the quantile one-sided."""
    assert t_interval([]) == (None, None) and str(t_interval([])) == "-"
    assert t_interval([0.5]) == (0.5, None)
    mean, half = t_interval([1.0, 2.0, 3.0])
    assert (mean, half) == (2.0, pytest.approx(2.4841377, rel=1e-6))
    assert t_interval([1.0, 2.0])[1] == pytest.approx(0.5 * 12.706205, rel=1e-6)


def test_another_metric(tmp_path):
    """Red if only the summary is read, or a metric of no run gives an empty table."""
    config = tiny_config(**{"max_steps": 6, "dataset.data_dir": str(tmp_path)})
    path = write_config(config, tmp_path / "config.py")
    (run,) = expand(str(path), {}, [0], tmp_path)
    assert run.workdir == tmp_path / "base" / "seed0"
    writer = MetricWriter(run.workdir)
    writer.write_scalars(4, {"loss": 0.25})
    writer.close()
    ended = {"steps": 6, "device": "cpu", "accounting": {"flops_per_step": 7}}
    summary.write_summary(run.workdir, ended, run.config)
    records = [record_of(run, [])]
    assert collect([run], records, "loss")[0].values == {0: 0.25}
    found = collect([run], records, "accounting/flops_per_step")
    assert found[0].interval.mean == 7.0
    with pytest.raises(ValueError, match="no run has a metric 'los'.* like loss"):
        collect([run], records, "los")


def test_a_cell_is_held_against_the_first_seed_by_seed(tmp_path):
    """Red if a difference is of means over different seeds, or of another cell."""
    runs = [
        SweepRun(cell, {"lr": cell}, seed, tmp_path, (), {}, 6)
        for cell in "ab"
        for seed in (0, 1, 2)
    ]
    values = {("a", 0): 1.0, ("a", 1): 3.0, ("b", 0): 2.0, ("b", 1): 5.0, ("b", 2): 99}
    records = [
        Record(cell, seed, 6, [], {"x": value}, "cpu", "2026-11-28", {})
        for (cell, seed), value in values.items()
    ]
    first, second = collect(runs, records, "x")
    assert first.difference.mean == 0 and second.interval.mean == pytest.approx(106 / 3)
    assert second.difference.mean == 1.5
    assert second.difference.half_width == pytest.approx(0.5 * 12.706205, rel=1e-6)
    text = write_report(tmp_path, {"x": [first, second]}, {}, 3)
    assert "| less a |     95 % interval |" in text
    assert "+1.5 | -4.8531 to 7.8531 |" in text


def test_layers_are_means_over_seeds(tmp_path):
    """Red if seeds, transforms or layers mix, or other kinds count as rotations."""
    at = "eval/equivariance/layer_{}/{}/corrected"
    records = [
        Record(
            "a",
            seed,
            6,
            [],
            {
                at.format(2, "rotation/90"): 0.2 + seed,
                at.format(2, "rotation/180"): 0.4 + seed,
                at.format(2, "flip/vertical"): 9.0,
                at.format(10, "rotation/90"): 0.7,
                "eval/layer_knn/layer_2/top1": 0.5 + seed,
                "eval/layer_knn/layer_10/top1": 0.1,
                "eval/layer_knn/layer_11/top1": 0.1,
            },
            "cpu",
            "2026-11-28",
            {},
        )
        for seed in (0, 1)
    ]
    np.testing.assert_allclose(by_layer(records), [[2, 0.8, 1.0], [10, 0.7, 0.1]])
    assert layers_picture(tmp_path / "layers.png", records).read_bytes()
    assert layers_picture(tmp_path / "none.png", []) is None


def drawn(results, tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(
        Figure,
        "savefig",
        lambda figure, *_, **__: figures.append(figure),
    )
    write_report(tmp_path, {"knn_accuracy": results}, {}, 3)
    return figures[0].axes[0]


def test_one_axis_of_numbers_is_plotted_against_it(tmp_path, monkeypatch):
    """Red if cells are drawn in the order written, or off their values."""
    results = [
        CellResult(f"lr={v}", {"lr": v}, {0: y}, Interval(y, 0.1), NO_INTERVAL)
        for v, y in (("1e-2", 3.0), ("1e-4", 1.0), ("1e-3", 2.0))
    ]
    ax = drawn(results, tmp_path, monkeypatch)
    assert ax.get_xlabel() == "lr" and ax.get_xscale() == "log"
    line = ax.lines[0]
    assert line.get_xydata().tolist() == [[1e-4, 1.0], [1e-3, 2.0], [1e-2, 3.0]]
    assert [text.get_text() for text in ax.get_xticklabels()] == [
        "1e-4",
        "1e-3",
        "1e-2",
    ]


def test_other_grids_are_plotted_cell_by_cell(tmp_path, monkeypatch):
    """Red if a cell without values takes a row, or rows lose their names."""
    results = [
        CellResult(
            "a=x,b=1",
            {"a": "x", "b": "1"},
            {0: 0.5, 1: 0.7},
            Interval(0.6, 0.2),
            NO_INTERVAL,
        ),
        CellResult("a=x,b=2", {"a": "x", "b": "2"}, {}, NO_INTERVAL, NO_INTERVAL),
        CellResult(
            "a=y,b=1", {"a": "y", "b": "1"}, {0: 0.9}, Interval(0.9, None), NO_INTERVAL
        ),
    ]
    ax = drawn(results, tmp_path, monkeypatch)
    assert [text.get_text() for text in ax.get_yticklabels()] == [
        "a=x\nb=1",
        "a=y\nb=1",
    ]
    assert ax.lines[0].get_xydata().tolist() == [[0.6, 0.0], [0.9, 1.0]]
    assert ax.get_xlabel() == "knn_accuracy"
