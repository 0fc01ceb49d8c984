"""Command line: `python -m ser_jax.interop FILE`: what a file of weights is.

Its layout, sizes, heads and positions, what is guessed and what would be ignored.
Nothing is written, and nothing in the file is run. With `--to=timm --out=DIR` a run's
encoder, or one out of a file, is written for other programs, with a model card.

This program alone among the folder's files knows of runs.
"""

from typing import Any

from absl import app, flags
from etils import epath

from ser_jax.config import flags as command_line
from ser_jax.evaluate.open import open_run
from ser_jax.evaluate.results_file import read_results
from ser_jax.evaluate.tasks import TASKS
from ser_jax.interop.export.targets import TARGETS
from ser_jax.interop.export.write import export
from ser_jax.interop.files.refused import RefusedFileError
from ser_jax.interop.flags import define_given_flags, given_from_flags
from ser_jax.interop.imported import import_weights
from ser_jax.storage.files import as_path
from ser_jax.storage.runs import RESULTS_FILE
from ser_jax.storage.tables import flatten

_EXAMPLE = "python -m ser_jax.interop FILE"
_TO = flags.DEFINE_enum("to", None, list(TARGETS), "Write the encoder as this.")
_OUT = flags.DEFINE_string("out", None, "Folder that --to makes.")
_STEP = flags.DEFINE_integer("step", None, "Checkpoint of a run; the newest if not.")
_ENCODER = flags.DEFINE_enum(
    "encoder", None, ["online", "target"], "A run's; if not given, that it evaluates."
)


def main(argv: list[str]) -> None:
    """Describes or writes the encoder that the command line names."""
    if len(argv) != 2:
        command_line.fail(
            f"expected one file or folder of weights, or a run: {_EXAMPLE}"
        )
    if (_TO.value is None) != (_OUT.value is None):
        command_line.fail("--to and --out go together: --to=timm --out=DIR.")
    command_line.log_own_messages()
    path = as_path(argv[1])
    print(command_line.run_or_fail(_describe if _TO.value is None else _write, path))


def _describe(path: epath.Path) -> str:
    return import_weights(path, given_from_flags()).describe()


def _write(path: epath.Path) -> str:
    if (path / "checkpoints").is_dir():
        run = open_run(path, step=_STEP.value, encoder=_ENCODER.value)
        encoder, about = run.encoder, _about(run.about(), run.folder)
        parts = encoder.module, encoder.variables, encoder.mean, encoder.std
    else:
        found = import_weights(path, given_from_flags())
        if found.mean is None or found.std is None:
            raise RefusedFileError(path, found.asked["normalize"])
        parts = found.module, found.variables, found.mean, found.std
        about = {"from": path.name, "layout": found.layout, "encoder": found.role}
    assert _TO.value is not None and _OUT.value is not None
    files = export(*parts, _OUT.value, to=_TO.value, about=about)
    return "\n".join(["Written:", *map(str, files)])


def _about(about: dict[str, Any], folder: epath.Path) -> dict[str, Any]:
    """What a card says of a run: what was trained on what, and what it reached."""
    said = {**about["settings"], "seed": about["seed"], "step": about["step"]}
    said["encoder"] = about["encoder"]
    path = folder / RESULTS_FILE
    found = flatten(read_results(path)["tasks"]) if path.exists() else {}
    headlines = [(k, task.headline) for k, task in TASKS.items() if task.headline]
    measured = {name: found.get(f"{k}/{key}") for k, (name, key) in headlines}
    said["measured"] = {k: x for k, x in measured.items() if x is not None}
    return said


if __name__ == "__main__":
    define_given_flags()
    app.run(main, flags_parser=command_line.parse_flags_and_runs)
