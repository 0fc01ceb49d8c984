"""What a benchmark found, as a table to read and a file to compare."""

import json
import os
import pathlib
from typing import Any

Figures = dict[str, Any]

# What the table shows: label, then the figures of base, regularized step and ratio.
_ROWS = (
    ("FLOPs a step, jaxpr", "flops_per_step_base", "flops_per_step_ser", "flops_ratio"),
    (
        "FLOPs a step, base's class token at the same layer",
        "flops_per_step_base_same_cls_layer",
        "flops_per_step_ser",
        "flops_ratio_same_cls_layer",
    ),
    (
        "FLOPs a step, by hand",
        "flops_per_step_base_by_hand",
        "flops_per_step_ser_by_hand",
        "flops_ratio_by_hand",
    ),
    ("FLOPs a step, XLA", "flops_per_step_base_xla", "", ""),
    ("step, median s", "step_s_base", "step_s_ser", "step_ratio"),
    ("step, p10 and p90 s", "step_s_base_p10_p90", "step_s_ser_p10_p90", ""),
    ("images/s", "images_per_s_base", "images_per_s", ""),
    ("MFU", "mfu_base", "mfu", ""),
    ("peak memory, bytes", "", "peak_memory_bytes", ""),
    ("compile, s", "compile_s_base", "compile_s", ""),
    ("augmentation alone, images/s", "", "augment_images_per_s", ""),
    ("loader alone, images/s", "", "loader_images_per_s", ""),
)


def table(figures: Figures) -> str:
    """The figures that were taken, to read.

    Args:
        figures: Figures by name, as from `run` or `measure_ntxent_memory`.

    Returns:
        A markdown table.
    """
    if "ntxent_temp_memory" in figures:
        head: tuple[str, ...] = ("tokens", "blockwise, MiB", "dense, MiB")
        rows = [
            (f"{row['tokens']:,}",)
            + tuple(
                f"{row[k] / 2**20:,.0f}" for k in ("blockwise_bytes", "dense_bytes")
            )
            for row in figures["ntxent_temp_memory"]
        ]
    else:
        head = ("", "base", "with regularizer", "ratio")
        rows = [
            (label, *(_text(figures.get(key)) for key in keys))
            for label, *keys in _ROWS
            if any(figures.get(key) is not None for key in keys)
        ]
    lines = [head, ("---", *("---:" for _ in head[1:])), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(_text(item) for item in value)
    return f"{value:,.5g}" if 1e-3 <= abs(value) < 1e9 else f"{value:.5e}"


def write_json(path: str | os.PathLike[str], figures: Figures) -> None:
    """Writes figures to a file, whole or not at all.

    Args:
        path: The file.
        figures: Figures by name.
    """
    target = pathlib.Path(path)
    partial = target.with_name(f".{target.name}.partial")
    partial.write_text(json.dumps(figures, indent=2) + "\n")
    partial.rename(target)
