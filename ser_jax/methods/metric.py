"""What a metric is: declared where it is computed, drawn and compared by that."""

import dataclasses

import jax

Metrics = dict[str, jax.Array]  # Name of a metric -> its value, `[]`.


@dataclasses.dataclass(frozen=True)
class Panel:
    """A set of axes among the training curves; metrics whose panels are equal share it.

    Attributes:
        title: Its title.
        scale: "linear" or "log".
        starts_at_zero: Whether the axis starts at 0.
        is_noisy: Whether a long curve is drawn faintly, its running mean on top.
        is_graded: Whether its lines are in order: coloured by place, the first and the
            last named.
        hides_constants: Whether it is left out of a run in which nothing in it varies.
    """

    title: str
    scale: str = "linear"
    starts_at_zero: bool = False
    is_noisy: bool = True
    is_graded: bool = False
    hides_constants: bool = False


@dataclasses.dataclass(frozen=True)
class Metric:
    """A number that a run logs.

    Attributes:
        name: Its key in `metrics.jsonl`.
        panel: Where it is drawn.
        label: Its line's name in the legend.
        is_compared: Whether several runs are compared by it: in a panel of its own with
            a line a run, and in a table.
    """

    name: str
    panel: Panel
    label: str
    is_compared: bool = False
