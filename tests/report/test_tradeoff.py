"""Equivariance against accuracy, as it is drawn."""

from matplotlib.colors import to_hex

from ser_jax.evaluate.pictures.figures import COLORS
from ser_jax.report.pictures.tradeoff import Tradeoff, tradeoff_picture


def test_tradeoff_picture(tmp_path, figures):
    """Red if the axes are exchanged, or a point is of another layer or checkpoint."""
    checkpoints = {
        "base": Tradeoff({4: 0.25}, 0.75),
        "ser": Tradeoff({2: 0.5, 4: 0.375}, 0.8125),
    }
    tradeoff_picture(tmp_path / "t.png", checkpoints, accuracy="top-1")
    early, last = figures[0].axes
    assert [early.get_title(loc="left"), last.get_title(loc="left")] == [
        "layer 2",
        "layer 4",
    ]
    assert early.collections[0].get_offsets().tolist() == [[0.5, 0.8125]]
    assert [dots.get_offsets().tolist() for dots in last.collections] == [
        [[0.25, 0.75]],
        [[0.375, 0.8125]],
    ]
    assert [text.get_text() for text in last.texts] == ["base", "ser"]
    assert to_hex(early.collections[0].get_facecolor()[0]) == COLORS[1]
