"""Programs run in a copy of one process that has imported the libraries.

`python -m ser_jax.main` takes two seconds to import what it needs, and a mistake on the
command line a tenth of one to be noticed. The copies are of a process that has imported
the libraries, and of ours none that defines flags, so each reads its flags anew.
Programs that train are started as a user starts them: `helpers.support.start_main`.
"""

import dataclasses
import importlib.util
import multiprocessing
import os
import pathlib
import runpy
import sys
import tempfile
from collections.abc import Callable

from absl import flags

LIBRARIES = ["ser_jax.train.loop", "ser_jax.evaluate.results", "ser_jax.report.curves"]
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(LIBRARIES)


@dataclasses.dataclass(frozen=True)
class Done:
    returncode: int | None
    stdout: str
    stderr: str


def run_program(
    module: str, *arguments: str, cwd: pathlib.Path, **environment: str
) -> Done:
    """What `python -m module arguments` leaves; `environment` is for what it starts."""
    return call(_run_module, module, arguments, environment, cwd=cwd)


def call(function: Callable[..., None], *args, cwd: pathlib.Path) -> Done:
    """What a process of its own leaves that calls a module's function."""
    with (
        tempfile.NamedTemporaryFile("r") as out,
        tempfile.NamedTemporaryFile("r") as err,
    ):
        process = FORKS.Process(
            target=_redirected, args=(out.name, err.name, cwd, function, *args)
        )
        process.start()
        process.join()
        return Done(process.exitcode, out.read(), err.read())


def _redirected(out, err, cwd, function, *args):
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY), number)
    os.chdir(cwd)
    function(*args)


def _run_module(module, arguments, environment):
    os.environ.update(environment)
    sys.argv = ["", *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def parse_flags(name: str, words: list[str]) -> None:
    """Reads what a program is given, and does nothing else."""
    spec = importlib.util.find_spec(name)
    name += ".__main__" * bool(spec.submodule_search_locations)
    module = importlib.import_module(name)
    getattr(module, "_define_flags", lambda: None)()
    sys.argv = ["x", *words]  # where config flags look for their own
    rest = flags.FLAGS(sys.argv)[1:]
    # Runs and files of weights are the only arguments that are no flags.
    assert name.startswith(("ser_jax.report", "ser_jax.interop")) or not rest, rest
