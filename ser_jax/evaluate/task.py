"""What a task of `python -m ser_jax.evaluate` says of itself."""

import dataclasses
import fnmatch
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from ser_jax.evaluate.options import NoOptions
from ser_jax.evaluate.run import TrainedRun
from ser_jax.evaluate.subject import Subject


def nothing(subject: Subject, options: Any) -> None:
    """The obstacle of a task that can always be done."""
    del subject, options


def no_labels(subject: Subject, options: Any) -> str | None:
    """Why accuracy cannot be measured: it needs labelled splits."""
    del options
    return subject.data.unlabelled()


def no_images(subject: Subject, options: Any) -> str | None:
    """Why nothing can be looked at: there are no images."""
    del options
    return subject.data.absent()


def one_grid(subject: Subject, options: Any) -> str | None:
    """Why pictures of other sizes cannot be shown to it, or there are none at all."""
    return subject.one_grid() or no_images(subject, options)


def no_run(subject: Subject, options: Any) -> str | None:
    """Why training cannot be asked about: the weights come without their run."""
    del options
    if isinstance(subject, TrainedRun):
        return None
    return (
        "it asks how the encoder was trained, and this one comes without its run. "
        "Evaluate the workdir of a run of ser_jax.main."
    )


@dataclasses.dataclass(frozen=True)
class Task:
    """One thing that can be asked of an encoder.

    A result is a number, a text, a list of numbers, or a mapping of names to these. The
    patterns below are `fnmatch`'s and match one name on the path to a result.

    Attributes:
        name: What `--tasks` calls it, and its key in results.json.
        section: Part of the report that has its table; None: it has none.
        caption: What its numbers are.
        measure: `(subject, options) -> results`.
        obstacle: `(subject, options) -> why it cannot be measured`, a sentence that
            says what to do; None if it can. Called before any work is done.
        options: Dataclass of what it can be told; see `options.option`.
        in_all: Whether "all" includes it, where nothing stands in the way.
        optional: Whether it needs more than an encoder and its data, so that a report
            does not miss it.
        better: Pattern -> whether the better result is the "higher" or the "lower".
        in_detail: Patterns of what has too many numbers to be shown at once.
        headline: Its main result: how the report calls it, and the path to it.
    """

    name: str
    section: str | None
    caption: str
    measure: Callable[[Subject, Any], dict[str, Any]]
    obstacle: Callable[[Subject, Any], str | None] = nothing
    options: type = NoOptions
    in_all: bool = True
    optional: bool = False
    better: Mapping[str, Literal["higher", "lower"]] = dataclasses.field(
        default_factory=dict
    )
    in_detail: Sequence[str] = ()
    headline: tuple[str, str] | None = None

    def direction(self, path: str) -> Literal["higher", "lower"] | None:
        """Which of two results is the better one.

        Args:
            path: To the result, from the task's on: "layer_2/rotation/90/error". What
                `better` says of its last name counts most.

        Returns:
            "higher" or "lower"; None if it is a matter of taste.
        """
        for name in reversed(path.split("/")):
            for pattern, direction in self.better.items():
                if fnmatch.fnmatchcase(name, pattern):
                    return direction
        return None

    def is_detail(self, path: str) -> bool:
        """Whether a result is one of too many to be shown at once.

        Args:
            path: To the result, as in `direction`.

        Returns:
            Whether something that it is part of matches `in_detail`.
        """
        above = path.split("/")[:-1]
        return any(fnmatch.filter(above, pattern) for pattern in self.in_detail)
