"""What the programs' command lines share: a config, and errors of one message."""

import logging
import pathlib
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import jax
from absl import flags
from absl import logging as absl_logging
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="Experiment: a file in configs/.", lock_config=True
)
_TRACEBACK = flags.DEFINE_bool("traceback", False, "Show where an error was raised.")

_DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    False,
    "Several processes, found in the environment (TPU pod, SLURM).",
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "host:port of process 0, for several processes by hand."
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "With --coordinator.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "With --coordinator.")


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
        return flags.FLAGS(argv)
    except (flags.Error, OSError, AttributeError, KeyError, TypeError) as error:
        fail(explain(error))


def check_config_file(example: str) -> None:
    """Ends the program if `--config` is missing or names no file.

    Args:
        example: A command line that would do.
    """
    flag = flags.FLAGS["config"]
    if not flag.present:
        fail(f"--config is missing. For example: {example}")
    path = pathlib.Path(config_flags.get_config_filename(flag).partition(":")[0])
    if not path.is_file():
        others = sorted(str(other) for other in path.parent.glob("*.py"))
        there = f" Beside it there are: {', '.join(others)}." if others else ""
        fail(f"config {path} does not exist.{there}")


def log_own_messages() -> None:
    """Shows this package's messages, and only the warnings of others."""
    absl_logging.set_verbosity(absl_logging.WARNING)  # Orbax tells a page a checkpoint
    logging.getLogger("ser_jax").setLevel(logging.INFO)


def join_processes() -> None:
    """Makes this process one of several, if the flags say that it is."""
    by_hand = (_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    if 0 < by_hand.count(None) < 3:
        fail("--coordinator, --num_processes, --process_id go together.")
    if _DISTRIBUTED.value or None not in by_hand:
        jax.distributed.initialize(*by_hand)


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
    except (ValueError, OSError, FloatingPointError) as error:
        if _TRACEBACK.value:
            raise
        fail(f"{error}\n(--traceback shows where this was raised.)")
