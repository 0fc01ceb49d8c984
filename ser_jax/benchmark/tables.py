"""What a benchmark found, as a table to read and a file to compare."""

from typing import Any

from ser_jax.evaluate.cost.compare import claim_rows
from ser_jax.storage.tables import table

Figures = dict[str, Any]

# Label, then the figures of the base step, of the regularized one and their ratio.
_STEP_ROWS = (
    ("step, median s", "step_s_base", "step_s_ser", "step_ratio"),
    ("step, p10 s", "step_s_p10_base", "step_s_p10_ser", ""),
    ("step, p90 s", "step_s_p90_base", "step_s_p90_ser", ""),
    ("images/s", "images_per_s_base", "images_per_s", ""),
    ("MFU", "mfu_base", "mfu", ""),
    ("peak memory, bytes", "", "peak_memory_bytes", ""),
    ("compile, s", "compile_s_base", "compile_s", ""),
    ("augmentation alone, images/s", "", "augment_images_per_s", ""),
    ("loader alone, images/s", "", "loader_images_per_s", ""),
    ("loader alone, 1 thread, images/s", "", "loader_images_per_s_1_thread", ""),
    ("loader alone, 2 threads, images/s", "", "loader_images_per_s_2_threads", ""),
)


def step_table(figures: Figures) -> str:
    """The figures of an experiment.

    Args:
        figures: Figures by name; rows without any are left out.

    Returns:
        A markdown table.
    """
    cells: list[tuple[str, ...]] = [("", "base", "with regularizer", "ratio")]
    rows: list[tuple[Any, ...]] = [row[1:] for row in claim_rows(figures)]
    rows += [(label, *map(figures.get, keys)) for label, *keys in _STEP_ROWS]
    for label, base, regularized, ratio in rows:
        if base is not None or regularized is not None:
            quotient = f"{ratio:.4f}" if ratio else ""
            cells.append((label, _text(base), _text(regularized), quotient))
    return table(cells)


def memory_table(figures: Figures) -> str:
    """The memory of the token-level loss.

    Args:
        figures: `ntxent_temp_memory`: one dict per number of tokens.

    Returns:
        A markdown table.
    """
    cells: list[tuple[str, ...]] = [("tokens", "blockwise, MiB", "dense, MiB")]
    for row in figures["ntxent_temp_memory"]:
        sizes = (row[f"{form}_bytes"] / 2**20 for form in ("blockwise", "dense"))
        cells.append((f"{row['tokens']:,}", *(f"{size:,.0f}" for size in sizes)))
    return table(cells)


def head_table(figures: Figures) -> str:
    """The time of linear evaluation.

    Args:
        figures: What `head_costs` gives.

    Returns:
        A markdown table.
    """
    encoder, one, grid = (
        1e3 * figures[key] for key in ("encoder_s", "heads_1_s", "heads_grid_s")
    )
    rows = [
        ("encoder, forward", encoder, encoder, None),
        ("heads, all epochs", one, grid, figures["heads_ratio"]),
        ("both", encoder + one, encoder + grid, figures["linear_ratio"]),
    ]
    head = ("ms per training image", "1 head", f"{figures['num_heads']} heads", "ratio")
    return table([head, *((label, *map(_text, cells)) for label, *cells in rows)])


def _text(value: float | None) -> str:
    if value is None:
        return ""
    if value >= 1e10:
        return f"{value:.6g}"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
