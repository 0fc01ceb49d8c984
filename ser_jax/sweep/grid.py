"""What a sweep runs: cells of a grid, each as a command line of `ser_jax.main`."""

import dataclasses
import functools
import itertools
import re
from collections.abc import Sequence
from typing import Any

from absl import flags
from etils import epath
from ml_collections import config_flags

from ser_jax.config.differences import differences
from ser_jax.config.flags import explain
from ser_jax.config.recorded import complete
from ser_jax.data.sources import open_source
from ser_jax.methods.objectives import OBJECTIVES
from ser_jax.storage.summary import read_summary
from ser_jax.train.experiment import build

PRESET = "preset"  # the axis that changes the config's name, not one of its settings

Axes = dict[str, tuple[str, ...]]  # Key to values, as written.


@dataclasses.dataclass(frozen=True)
class SweepRun:
    """One run of a sweep.

    Attributes:
        cell: Name of its cell.
        settings: The cell's axis -> its value, as written.
        seed: Its seed.
        workdir: Its folder.
        arguments: What `ser_jax.main` is given, but for the workdir.
        config: The config these give, as plain dicts.
        stop_step: Its last step.
        encoder: Whose weights are evaluated, "online" or "target".
    """

    cell: str
    settings: dict[str, str]
    seed: int
    workdir: epath.Path
    arguments: tuple[str, ...]
    config: dict[str, Any]
    stop_step: int
    encoder: str = "online"

    def is_finished(self) -> bool:
        """Whether its folder holds the summary of all of its steps.

        Raises:
            ValueError: If that is the summary of another experiment.
        """
        ended = read_summary(self.workdir)
        if ended is None or not {"config", "steps"} <= ended.keys():
            return False
        try:
            changed = differences(complete(ended["config"]), self.config)
        except ValueError as error:
            raise ValueError(f"{self.workdir / 'summary.json'}: {error}") from error
        if ended["steps"] > self.stop_step:
            changed.append(f"steps: {ended['steps']} -> {self.stop_step}")
        if changed:
            raise ValueError(
                f"{self.workdir} holds a run with other settings (there -> now):\n  "
                + "\n  ".join(changed)
                + "\nGive the settings it was made with, or another --workdir."
            )
        return ended["steps"] == self.stop_step


def parse_grid(text: str) -> Axes:
    """Axes of a grid.

    Args:
        text: "regularizer.weight=0.0,0.5;preset=none,ser"; commas inside brackets
            belong to the value; "" has no axis: one cell, the config as it is.

    Returns:
        Key to values, both as written.

    Raises:
        ValueError: If an axis has no "=", is there twice, or has an empty value or one
            value twice.
    """
    axes: Axes = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        key, equals, rest = (x.strip() for x in part.partition("="))
        values = tuple(v.strip() for v in re.split(r",(?![^(\[]*[)\]])", rest))
        if not (key and equals and all(values)):
            raise ValueError(
                f"--grid: expected KEY=VALUE,VALUE,... between semicolons, got "
                f"{part!r}. For example: --grid='regularizer.weight=0.0,0.5,1.0'"
            )
        if key in axes or len(set(values)) < len(values):
            raise ValueError(f"--grid: {part!r} gives a key or a value twice.")
        if key == "seed":
            raise ValueError("--grid: seeds are no axis; give them by --seeds=0,1,2.")
        axes[key] = values
    return axes


def expand(
    config_file: str,
    axes: Axes,
    seeds: Sequence[int],
    workdir: epath.Path,
    overrides: Sequence[str] = (),
) -> list[SweepRun]:
    """Every run of a sweep, cell by cell, its config read and built once to check it.

    Args:
        config_file: As for `--config`: "configs/digits.py:moco_v3/ser".
        axes: Axes of the grid.
        seeds: A run of every cell for each.
        workdir: Runs go to `workdir/CELL/seedN`.
        overrides: Arguments for every run: "--config.total_epochs=5".

    Returns:
        The runs.

    Raises:
        ValueError: If a cell's config is refused, naming the cell; or two cells would
            share a folder.
    """
    runs: list[SweepRun] = []
    for values in itertools.product(*axes.values()):
        settings = dict(zip(axes, values, strict=True))
        cell = ",".join(f"{key}={value}" for key, value in settings.items()) or "base"
        folder = workdir / re.sub(r"[^\w.=,()+-]", "_", cell)
        if any(folder == run.workdir.parent for run in runs):
            raise ValueError(f"--grid: two cells would share the folder {folder}.")
        file = config_file
        if PRESET in settings:
            file = with_preset_name(config_file, settings[PRESET])
        own = [f"--config.{k}={v}" for k, v in settings.items() if k != PRESET]
        arguments = (f"--config={file}", *overrides, *own)
        try:
            config = load_config(arguments)
            data = config.dataset
            size = _num_examples(data.name, data.train_split, data.data_dir)
            experiment = build(config, size)
        except (ValueError, OSError) as error:
            raise ValueError(f"cell {cell}: {error}") from error
        runs += [
            SweepRun(
                cell,
                settings,
                seed,
                folder / f"seed{seed}",
                (*arguments, f"--config.seed={seed}"),
                experiment.config | {"seed": seed},
                experiment.resolved.stop_step,
                "target" if experiment.evaluates_target else "online",
            )
            for seed in seeds
        ]
    return runs


def with_preset_name(config_file: str, preset: str) -> str:
    """The config file's name with another preset.

    Args:
        config_file: "FILE", "FILE:PRESET", "FILE:BASE" or "FILE:BASE/PRESET".
        preset: Name of a preset.

    Returns:
        "FILE:preset" or "FILE:BASE/preset".
    """
    file, _, rest = config_file.partition(":")
    base, slash, _ = rest.partition("/")
    return (
        f"{file}:{base}/{preset}" if slash or base in OBJECTIVES else f"{file}:{preset}"
    )


def load_config(arguments: Sequence[str]) -> Any:
    """The config that the program would read from these arguments.

    Args:
        arguments: "--config=FILE:PRESET", "--config.KEY=VALUE", ...

    Returns:
        The config.

    Raises:
        ValueError: If the file, a key or a value is refused.
    """
    values, argv = flags.FlagValues(), ["ser_jax.main", *arguments]
    config_flags.DEFINE_config_file(
        "config", flag_values=values, sys_argv=argv, lock_config=True
    )
    try:
        values(argv)
    except (flags.Error, AttributeError, KeyError, TypeError) as error:
        raise ValueError(explain(error)) from error
    return values["config"].value


@functools.cache
def _num_examples(name: str, split: str, data_dir: str) -> int:
    return len(open_source(name, split, data_dir))
