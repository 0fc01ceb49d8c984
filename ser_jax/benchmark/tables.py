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
        figures: Figures by name; rows without any are left out, and of a base alone
            the columns of what it has not.

    Returns:
        A markdown table.
    """
    rows: list[tuple[Any, ...]] = [row[1:] for row in claim_rows(figures)]
    rows += [(label, *map(figures.get, keys)) for label, *keys in _STEP_ROWS]
    rows = [row for row in rows if row[1] is not None or row[2] is not None]
    if figures["flops_per_step_ser"] is None:
        alone = [
            (label, _text(own if base is None else base))
            for label, base, own, _ in rows
        ]
        return table([("", "base"), *alone])
    cells: list[tuple[str, ...]] = [("", "base", "with regularizer", "ratio")]
    for label, base, regularized, ratio in rows:
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


def topology_table(figures: Figures) -> str:
    """What a step costs on a slice that is not here.

    Args:
        figures: What `measure_topology` gives.

    Returns:
        Tables: the step beside its base, time by part, the largest collectives, and
        what would help if it does not fit.
    """
    mega, giga = 1e-6, 1e-9
    rows: list[tuple[str, str, float]] = [
        ("peak memory of a device, GB", "peak_memory_bytes", giga),
        ("compiler's time, ms", "compiler_ms", 1),
        ("of it kernels, our estimate, ms", "custom_call_ms", 1),
        ("FLOPs of a device, 1e9", "flops", giga),
        ("share of the chip's peak", "peak_share", 1),
        ("sent by a device, MB", "wire_bytes", mega),
        ("collectives", "collectives", 1),
        ("compiled in, s", "compile_s", 1),
    ]
    cells = [("", "base", "step", "ratio")]
    for label, key, unit in rows:
        ours, base = (
            None if figures.get(name) is None else unit * figures[name]
            for name in (key, f"{key}_base")
        )
        quotient = f"{ours / base:.4f}" if ours and base else ""
        cells.append((label, _text(base), _text(ours), quotient))
    devices = "{num_devices} x {device_kind} of {num_hosts} host(s)".format(**figures)
    memory = f"{(figures['chip_memory_bytes'] or 0) * giga:.1f} GB each"
    fits = "The step fits." if figures["fits"] else "THE STEP DOES NOT FIT."
    lines = [f"{figures['topology']}: {devices}, {memory}. {fits}", "", table(cells)]
    if 0 < figures["b2_images"] < figures["num_devices"]:
        lines += ["", f"b2 is {figures['b2_images']} images, less than one a device."]
    if not figures["fits"]:
        rest = [
            (name, _text(giga * num_bytes))
            for name, num_bytes in figures["remedies"].items()
        ]
        return "\n".join([*lines, "", table([("with", "peak memory, GB"), *rest])])
    parts, base_parts = figures["ms_by_part"], figures.get("ms_by_part_base") or {}
    shares = [(name, _text(base_parts.get(name)), _text(parts[name])) for name in parts]
    sent = [
        (
            f"{row['times']} x {row['kind']} {row['shape'].partition('{')[0]}",
            _text(mega * row["wire_bytes"]),
            row["op_name"].rpartition("jit(train_step)/")[2][-60:] or row["part"],
        )
        for row in figures["largest_collectives"]
    ]
    floor = _text(mega * figures["gradient_wire_bytes"])
    estimates = []
    if shares:  # a GPU's compiler has none
        rate, host = (
            _text(figures[k]) for k in ("images_per_s", "images_per_s_per_host")
        )
        estimates = [
            "",
            f"At most {rate} images/s; each host loads {host} of them.",
            "",
            table([("compiler's time, ms", "base", "step"), *shares]),
        ]
    return "\n".join(
        [
            *lines,
            *estimates,
            "",
            table([("largest collectives", "MB sent", "of"), *sent]),
            f"To reduce the gradient once, in float32, a device sends {floor} MB.",
        ]
    )


def _text(value: float | None) -> str:
    if value is None:
        return ""
    if value >= 1e10:
        return f"{value:.6g}"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
