"""What the programs' command lines share: a config, its recipes, errors, the log."""

import logging
import os
import pathlib
import platform
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import jax
from absl import flags
from absl import logging as absl_logging
from ml_collections import config_flags
from tqdm import tqdm

from ser_jax.config.differences import flatten
from ser_jax.config.presets import PRESETS
from ser_jax.config.processes import scheduler
from ser_jax.methods.objectives import OBJECTIVES
from ser_jax.storage.files import as_path

CONFIG = config_flags.DEFINE_config_file(
    "config",
    help_string=f"""The experiment:
configs/<base>.py:<preset>, on ImageNet, or
configs/digits.py:<base>/<preset>, likewise cifar10.py and cifar10_resnet18.py.
bases: {", ".join(OBJECTIVES)}
presets: {", ".join(PRESETS)}
What each is: docs/recipes.md. --config.KEY=VALUE changes any setting.""",
    lock_config=True,
)
_SHOW_CONFIG = flags.DEFINE_bool(
    "show_config", False, "Print every setting of --config, and end."
)
# Where setup.py puts the repository's configs/ in an installed package.
RECIPES = pathlib.Path(__file__).parents[1] / "configs"
_TRACEBACK = flags.DEFINE_bool("traceback", False, "Show where an error was raised.")

_COMPILATION_CACHE = flags.DEFINE_string(
    "compilation_cache",
    None,
    "Folder that keeps compiled programs, so that a second start compiles nothing: "
    "JAX_COMPILATION_CACHE_DIR or ~/.cache/ser_jax/HOST. off: none is kept.",
)

_DISTRIBUTED: Any = flags.DEFINE(
    flags.EnumParser(["auto", "true", "false"]),
    "distributed",
    "auto",
    "One of several processes; auto: on a TPU slice, by SLURM, Kubernetes, Open MPI.",
    serializer=flags.ArgumentSerializer(),
    boolean=True,  # --distributed and --nodistributed, too
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "host:port of process 0, by hand."
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "With --coordinator.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "With --coordinator.")
_INIT_TIMEOUT_S = flags.DEFINE_integer(
    "init_timeout_s", 300, "Wait so long for all processes.", lower_bound=1
)
_HEARTBEAT_TIMEOUT_S = flags.DEFINE_integer(
    "heartbeat_timeout_s",
    100,
    "One that is silent so long ends all.",
    lower_bound=1,
)
_log = logging.getLogger(__name__)


def fail(message: str) -> NoReturn:
    """Ends the program with exit status 1.

    Args:
        message: What was expected, what came, what to do.
    """
    sys.exit(f"ser_jax: error: {message}")


def explain(error: Exception) -> str:
    """What an error in reading flags or a config has to say, in one line.

    Args:
        error: From absl, or from the config file.

    Returns:
        Its message, without the traceback or the quotes that it is wrapped in.
    """
    text = str(error.args[0] if error.args else error)
    if "Traceback" in text and "\nValueError: " in text:  # the file's own message
        text = text.rpartition("\nValueError: ")[2].strip()
    if isinstance(error, AttributeError | KeyError):  # quotes around its advice
        text = text.replace("\\n", ". ").replace("\\", "").replace("'", "")
        text = f"the config has no such key: {text}"
    return text


def parse_flags(argv: list[str]) -> list[str]:
    """Parses flags; one that cannot be read ends the program with one message.

    Args:
        argv: Command line.

    Returns:
        The program's name: anything else that is no flag is refused.
    """
    rest = parse_flags_and_runs(argv)
    if len(rest) > 1:
        fail(f"unexpected argument {rest[1]!r}; flags are written --name=value.")
    return rest


def parse_flags_and_runs(argv: list[str]) -> list[str]:
    """Parses flags, and leaves what else there is: the workdirs of runs.

    Args:
        argv: Command line.

    Returns:
        The program's name and the other arguments.
    """
    try:
        return flags.FLAGS(with_recipes(argv))
    except (flags.Error, OSError, AttributeError, KeyError, TypeError) as error:
        fail(explain(error))


def with_recipes(argv: list[str]) -> list[str]:
    """The command line, its `configs/NAME.py` found where the package is installed.

    Args:
        argv: Command line.

    Returns:
        The same; a config file that is not here but among `RECIPES` is named by its
        full path.
    """

    def found(match: re.Match[str]) -> str:
        installed = RECIPES / match[2]
        is_here = pathlib.Path("configs", match[2]).exists()
        return (
            match[0] if is_here or not installed.exists() else f"{match[1]}{installed}"
        )

    return [re.sub(r"^(--?config=|)configs/(\w+\.py)(?=:|$)", found, x) for x in argv]


def check_config_file(example: str) -> None:
    """Ends the program if `--config` is missing or names no file, or to show it.

    Args:
        example: A command line that would do.
    """
    flag = flags.FLAGS["config"]
    if not flag.present:
        fail(f"--config is missing. For example: {example}")
    path = pathlib.Path(config_flags.get_config_filename(flag).partition(":")[0])
    if not path.is_file():
        others = sorted(map(str, path.parent.glob("*.py")))
        others = others or sorted(f"configs/{p.name}" for p in RECIPES.glob("*.py"))
        there = f" There are: {', '.join(others)}." if others else ""
        fail(f"config {path} does not exist.{there}")
    if _SHOW_CONFIG.value:
        for key, value in flatten(CONFIG.value.to_dict()).items():
            print(f"{key} = {tuple(value) if isinstance(value, list) else value!r}")
        sys.exit()


def log_own_messages() -> None:
    """Shows this package's messages, and only the warnings of others."""
    absl_logging.set_verbosity(absl_logging.WARNING)  # Orbax tells a page a checkpoint
    logging.getLogger("ser_jax").setLevel(logging.INFO)
    logging.root.handlers = [_Handler()]
    sys.unraisablehook = _say_unraisable


def _say_unraisable(about: Any) -> None:
    """Python's own, but for what is left of a save that failed, as its error says."""
    if str(about.exc_value) != "Event loop is closed":  # tensorstore's threads, by tens
        sys.__unraisablehook__(about)


class _Handler(logging.Handler):
    """Date, time, message on standard error, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a record; one that is more than information says what it is.

        But for Orbax's errors, and its event loop's: they are raised, and said once.
        """
        is_orbax = "orbax" in record.pathname or record.name == "asyncio"
        if is_orbax and record.levelno >= logging.ERROR:
            return
        level = "%(levelname)s: " if record.levelno > logging.INFO else ""
        form = logging.Formatter(f"%(asctime)s {level}%(message)s", "%Y-%m-%d %H:%M:%S")
        tqdm.write(form.format(record), file=sys.stderr)


def start_jax() -> None:
    """Makes this process one of several, if the flags say so; finds its devices.

    Programs that it compiles are kept for the next: see `--compilation_cache`. What is
    computed is in 32 bits, whatever `JAX_ENABLE_X64` says: see `in_32_bits`.
    """
    _join_processes()
    jax.config.update("jax_enable_x64", False)
    _keep_programs()
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        asked = getattr(jax.config, "jax_platforms", "")
        fail(
            f"JAX finds no device of JAX_PLATFORMS={asked or ''!r} "
            f"({str(error).splitlines()[0] if str(error) else 'it is not installed'}). "
            "Unset it to use what there is, or set it to cpu."
        )


def _join_processes() -> None:
    """Waits for the other processes, if there are any; a log line says who tells so.

    With `--distributed=auto` a process that is alone asks nobody and waits for nothing.
    """
    by_hand = (_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    if 0 < by_hand.count(None) < 3:
        fail("--coordinator, --num_processes, --process_id go together.")
    if None not in by_hand:
        told_by: str | None = "--coordinator"
    elif _DISTRIBUTED.value == "auto":
        told_by = scheduler(os.environ)
    else:
        told_by = "--distributed" if _DISTRIBUTED.value == "true" else None
    if told_by is None:
        return
    _log.info(
        "One of several processes (%s): waits for the others, %d s at most. "
        "--nodistributed: alone.",
        told_by,
        _INIT_TIMEOUT_S.value,
    )
    try:
        jax.distributed.initialize(
            *by_hand,
            initialization_timeout=_INIT_TIMEOUT_S.value,
            heartbeat_timeout_seconds=_HEARTBEAT_TIMEOUT_S.value,
        )
    except (RuntimeError, ValueError, OSError, LookupError, ImportError) as error:
        fail(
            f"the other processes ({told_by}) were not reached: {error} Start all of "
            "them; or name them by --coordinator, --num_processes and --process_id; or "
            "train alone: --nodistributed."
        )


def _keep_programs() -> None:
    """Sets the folder of compiled programs; none where the default can't be written."""
    folder: Any = _COMPILATION_CACHE.value or os.environ.get(
        "JAX_COMPILATION_CACHE_DIR"
    )
    if folder == "off":
        jax.config.update("jax_enable_compilation_cache", False)
        return
    if folder is None:
        caches = as_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
        # Programs for one machine's processor may not run on another's.
        folder = caches / "ser_jax" / platform.node()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:  # no home, or one that is read alone: programs are not kept
            return
        if not os.access(folder, os.W_OK):
            return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def run_or_fail(function: Callable[..., Any], *args: Any) -> Any:
    """Calls a function; an error meant for the user ends the program with its message.

    Args:
        function: What to call.
        *args: Its arguments.

    Returns:
        What it returns.
    """
    try:
        return function(*args)
    except KeyboardInterrupt:
        print("ser_jax: stopped by Ctrl-C.", file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError, FloatingPointError) as error:
        if _TRACEBACK.value:
            raise
        fail(f"{error}\n(--traceback shows where this was raised.)")
