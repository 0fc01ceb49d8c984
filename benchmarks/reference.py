"""Writes reference runs of a recipe, which `ser_jax.report --reference` compares with.

    python benchmarks/reference.py RUN0 RUN1 RUN2 --config=CONFIG --out=FILE

`CONFIG` is what the runs were trained by, `FILE` benchmarks/reference/NAME.jsonl. Three
runs or more, of different seeds; five if they can be had. Refused are runs that have
not ended, have other settings than `CONFIG` (it says which) or another's seed. Versions
and commit are those of this checkout: write what it has just trained.
"""

import importlib.metadata
import pathlib
import shlex
import subprocess

from absl import app, flags
from ml_collections import config_flags

from ser_jax import __version__
from ser_jax.config import flags as command_line
from ser_jax.config.differences import changed_settings
from ser_jax.report.reference import (
    changed_text,
    line_of,
    recipe_of,
    text_of,
    without_seed,
)
from ser_jax.storage.files import as_path, write_text
from ser_jax.storage.runs import read_runs
from ser_jax.train.experiment import build

ROOT = pathlib.Path(__file__).parents[1]
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")
_EXAMPLE = (
    "python benchmarks/reference.py RUN0 RUN1 RUN2 --config=configs/digits_ser.py "
    "--out=benchmarks/reference/NAME.jsonl"
)


def write_reference(workdirs, config, command, out, device=""):
    """Path of the file with these runs.

    Args:
        workdirs: Of three or more finished runs that differ in their seed.
        config: The recipe.
        command: What trained them, but for seed and workdir.
        out: The file; replaced as a whole.
        device: What trained them; "" is what the runs say.

    Raises:
        ValueError: If a run is not finished or of another recipe, or there are too few
            seeds.
    """
    # Only schedules depend on the size of the data set: any will do.
    recipe = without_seed(build(config, 1000 * config.batch_size).config)
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    lines = []
    for run in read_runs(workdirs):
        if changed := changed_settings(recipe, recipe_of(run), ()):
            raise ValueError(
                f"{run.path} was not trained by {command}: it has "
                f"{changed_text(changed)}. Give the --config that it was trained by."
            )
        seed = run.settings["seed"]
        full = f"{command} --config.seed={seed} --workdir=RUN"
        lines.append(line_of(run, full, {"ser_jax": _package(), **versions}, device))
    path = as_path(out)
    text = text_of(lines)
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_text(path, text)


def _package():
    """Version and commit of this package."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout.strip()
    return f"{__version__} ({described or 'commit not known'})"


def main(argv):
    """Writes the file that the command line describes."""
    command_line.check_config_file(_EXAMPLE)
    if flags.FLAGS.out is None:
        command_line.fail(f"--out is missing. For example: {_EXAMPLE}")
    flag = flags.FLAGS["config"]
    overrides = config_flags.get_override_values(flag)
    settings = [f"--config.{key}={value}" for key, value in overrides.items()]
    file = config_flags.get_config_filename(flag)
    command = shlex.join(
        ["python", "-m", "ser_jax.main", f"--config={file}", *settings]
    )
    path = command_line.run_or_fail(
        write_reference,
        *(argv[1:], command_line.CONFIG.value, command),
        *(flags.FLAGS.out, flags.FLAGS.device),
    )
    print(f"Written to {path}.")


if __name__ == "__main__":
    flags.DEFINE_string("out", None, "The file: benchmarks/reference/NAME.jsonl.")
    flags.DEFINE_string("device", "", "What trained them, if the runs do not say.")
    app.run(main, flags_parser=command_line.parse_flags_and_runs)
