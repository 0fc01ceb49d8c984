"""Training curves of several runs, side by side."""

import pathlib
from collections.abc import Sequence

from ser_jax.storage import summary
from ser_jax.storage.runs import Run

COMPARED_METRICS = (
    *("knn_accuracy", "rankme", "loss", "loss_inv", "loss_equiv", "grad_norm_equiv"),
    *("embedding_std", "cls_std", "teacher_entropy", "contrastive_accuracy"),
    *("rotation_accuracy", "mean_correlation"),
)


def draw_runs(path: pathlib.Path, runs: Sequence[Run]) -> bool:
    """Draws the curves of several runs as a PNG file, a panel a metric, a line a run.

    Args:
        path: The file; replaced as a whole.
        runs: Runs.

    Returns:
        Whether there was anything to draw.
    """
    drawings = []
    for metric in COMPARED_METRICS:
        curves = {r.name: r.curves[metric] for r in runs if metric in r.curves}
        if metric.endswith("_equiv"):  # 0 throughout where there is no such term
            curves = {name: c for name, c in curves.items() if c[:, 1].any()}
        if curves:
            drawings.append((_panel(metric, runs), curves))
    if drawings:
        summary.draw_panels(path, drawings, shared_legend=True)
    return bool(drawings)


def _panel(metric: str, runs: Sequence[Run]) -> summary.Panel:
    """The panel that has this metric, with a line for each run instead."""
    own = next(panel for panel in summary.PANELS if metric in panel.labels)
    title = own.title
    if len(own.labels) > 1:
        title += f", {own.labels[metric]}"
    return own._replace(title=title, labels={run.name: run.name for run in runs})
