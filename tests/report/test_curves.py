"""Curves show what was written."""

import math

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from ser_jax.report.curves import plot_curves
from ser_jax.storage.metrics import MetricWriter


def write_rows(workdir, rows):
    writer = MetricWriter(workdir)
    for step, row in enumerate(rows, start=1):
        writer.write_scalars(step, row)
    writer.close()


def drawn_axes(workdir, monkeypatch):
    """Draws the curves; the axes of the figure that was saved, by title."""
    figures = []
    save = Figure.savefig

    def record_and_save(figure, *args, **kwargs):
        figures.append(figure)
        save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", record_and_save)
    path = plot_curves(workdir)
    assert path == workdir / "curves.png"
    assert np.asarray(Image.open(path).convert("L")).min() < 100  # Not blank.
    return {ax.get_title(loc="left"): ax for ax in figures[0].axes}


def test_curves_show_the_panels_with_data(tmp_path, monkeypatch):
    rows = [
        {"loss": 3.0, "loss_inv": 2.0, "grad_norm": 1.0, "grad_norm_equiv": 0.0},
        {"loss": math.nan, "loss_inv": 1.0, "grad_norm": 0.1, "grad_norm_equiv": 0.2},
        {"loss": 2.0, "loss_inv": 0.5, "lr": 0.1, "images_per_s": 100.0, "other": 1.0},
    ]
    write_rows(tmp_path, rows)
    axes = drawn_axes(tmp_path, monkeypatch)
    assert list(axes) == [
        "loss",
        "gradient norm",
        "learning rate",
        "images per second",
    ]
    total, invariance = axes["loss"].lines
    assert total.get_label() == "total"
    np.testing.assert_array_equal(total.get_xydata(), [[1, 3], [3, 2]])
    np.testing.assert_array_equal(invariance.get_ydata(), [2.0, 1.0, 0.5])
    assert axes["loss"].get_legend() is not None
    assert axes["loss"].get_xlabel() == "step"
    assert axes["gradient norm"].get_yscale() == "log"
    np.testing.assert_array_equal(
        axes["gradient norm"].lines[1].get_xydata(), [[2, 0.2]]
    )
    assert axes["images per second"].get_ylim()[0] == 0
    assert axes["images per second"].get_legend() is None
    assert len({ax.get_xlim() for ax in axes.values()}) == 1


def test_long_noisy_curves_get_their_running_mean(tmp_path, monkeypatch):
    values = np.random.default_rng(0).normal(size=300)
    rows = [{"embedding_std": v, "lr": v} for v in values.tolist()]
    write_rows(tmp_path, rows)
    axes = drawn_axes(tmp_path, monkeypatch)
    raw, mean = axes["standard deviation of the embedding"].lines
    np.testing.assert_array_equal(raw.get_ydata(), values)
    expected = [values[max(i - 3, 0) : i + 4].mean() for i in range(300)]
    np.testing.assert_allclose(mean.get_ydata(), expected, rtol=0, atol=1e-12)
    (exact,) = axes["learning rate"].lines
    np.testing.assert_array_equal(exact.get_ydata(), values)


def test_blocks_are_coloured_by_depth_and_the_first_and_last_named(
    tmp_path, monkeypatch
):
    row = {f"grad_norm_block_{i:02d}": float(i) for i in range(1, 13)}
    write_rows(tmp_path, [row, row])
    ax = drawn_axes(tmp_path, monkeypatch)["gradient norm by block"]
    assert len(ax.lines) == len({line.get_color() for line in ax.lines}) == 12
    named = [text.get_text() for text in ax.get_legend().get_texts()]
    assert named == ["block 1", "block 12"]


def test_nothing_to_plot_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="nothing to plot in"):
        plot_curves(tmp_path)
