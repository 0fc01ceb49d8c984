"""Nested values as Markdown tables."""

import math
from collections.abc import Mapping, Sequence
from typing import Any


def table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table that is also aligned as plain text.

    Args:
        rows: Cells; the first row is the head, the first column on the left, the others
            on the right of theirs.

    Returns:
        Lines joined by line breaks.
    """
    first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    lines = []
    for name, *cells in rows:
        padded = [c.rjust(width) for c, width in zip(cells, others, strict=True)]
        lines.append(f"| {' | '.join([name.ljust(first), *padded])} |")
    rules = ["-" * (first + 2), *("-" * (width + 1) + ":" for width in others)]
    return "\n".join([lines[0], f"|{'|'.join(rules)}|", *lines[1:]])


def flatten(tree: Mapping[str, Any], separator: str = "/") -> dict[str, Any]:
    """The leaves of nested mappings by path.

    Args:
        tree: Mapping.
        separator: What joins the names of a path.

    Returns:
        Path to leaf, in order.
    """
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            below = flatten(value, separator).items()
            flat |= {f"{name}{separator}{path}": leaf for path, leaf in below}
        else:
            flat[str(name)] = value
    return flat


def to_text(value: Any) -> str:
    """A value as tables show it: five digits of a fraction, all of a large number.

    Args:
        value: Number, text or None.

    Returns:
        The text.
    """
    value = value.item() if hasattr(value, "item") else value
    large = 1e4 if isinstance(value, int) else 1e5
    if isinstance(value, int | float) and large <= abs(value) < math.inf:
        return f"{value:,.0f}"
    return f"{value:.5g}" if isinstance(value, float) else str(value)
