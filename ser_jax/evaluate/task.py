"""What a task of `python -m ser_jax.evaluate` is."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

from ser_jax.evaluate.run import TrainedRun


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line says beside the run and the tasks.

    Attributes:
        folder: Where results go; it exists.
        protocol: Linear protocol: a name in `LINEAR_PROTOCOLS`.
        grid_layer: Layer whose token grid k-NN and linear heads read, too; or None.
        corrupted: Folder of ImageNet-C or CIFAR-10-C; None: pictures corrupted here.
        perturbed: Folder of ImageNet-P; None: clips made here.
        flip_normalizers: JSON file, perturbation -> a reference network's flip
            probability; None: there is no mean flip rate.
        shifted: Names of further data sets with the same classes.
        finetune_epochs: Passes over the training split of `finetune`.
    """

    folder: pathlib.Path
    protocol: str = "grid"
    grid_layer: int | None = None
    corrupted: str | None = None
    perturbed: str | None = None
    flip_normalizers: str | None = None
    shifted: tuple[str, ...] = ()
    finetune_epochs: float = 20.0


def _nothing(run: TrainedRun, options: Options) -> None:
    del run, options


@dataclasses.dataclass(frozen=True)
class Task:
    """One thing that can be asked of a trained run.

    Attributes:
        measure: `(run, options) -> results`: names to numbers, texts or more of these.
        obstacle: `(run, options) -> why it cannot be measured`, a sentence that says
            what to do; None if it can. Called before any work is done.
        is_in_all: Whether "all" includes it, where nothing stands in the way.
    """

    measure: Callable[[TrainedRun, Options], dict[str, Any]]
    obstacle: Callable[[TrainedRun, Options], str | None] = _nothing
    is_in_all: bool = True
