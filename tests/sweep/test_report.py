"""What is made of a sweep's runs: intervals, other metrics, plots."""

import pytest
from helpers.support import tiny_config, write_config
from matplotlib.figure import Figure

from ser_jax.storage import summary
from ser_jax.storage.metrics import MetricWriter
from ser_jax.sweep.grid import expand
from ser_jax.sweep.report import CellResult, collect, t_interval, write_report


def test_t_interval():
    """Red if the deviation is the population's, or the quantile one-sided."""
    assert t_interval([]) == (None, None)
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
    assert collect([run], "loss")[0].values == {0: 0.25}
    assert collect([run], "accounting/flops_per_step")[0].mean == 7.0
    with pytest.raises(ValueError, match="no run has a metric 'los'.*flops.*loss, st"):
        collect([run], "los")


def drawn(results, tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(
        Figure,
        "savefig",
        lambda figure, *_, **__: figures.append(figure),
    )
    write_report(tmp_path, results, "knn_accuracy", {}, 3)
    return figures[0].axes[0]


def test_one_axis_of_numbers_is_plotted_against_it(tmp_path, monkeypatch):
    """Red if cells are drawn in the order written, or off their values."""
    results = [
        CellResult(f"lr={v}", {"lr": v}, {0: y}, y, 0.1)
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
        CellResult("a=x,b=1", {"a": "x", "b": "1"}, {0: 0.5, 1: 0.7}, 0.6, 0.2),
        CellResult("a=x,b=2", {"a": "x", "b": "2"}, {}, None, None),
        CellResult("a=y,b=1", {"a": "y", "b": "1"}, {0: 0.9}, 0.9, None),
    ]
    ax = drawn(results, tmp_path, monkeypatch)
    assert [text.get_text() for text in ax.get_yticklabels()] == [
        "a=x\nb=1",
        "a=y\nb=1",
    ]
    assert ax.lines[0].get_xydata().tolist() == [[0.6, 0.0], [0.9, 1.0]]
    assert ax.get_xlabel() == "knn_accuracy"
