"""A trace of some of a run's steps, which xprof and TensorBoard open."""

import logging
import re
import shutil
import tempfile

import jax

from ser_jax.storage.bucket import scheme_of, upload_folder
from ser_jax.storage.files import PathLike, as_path

_logger = logging.getLogger(__name__)


def steps_of(text: str) -> range:
    """The steps that "START:STOP" names, both included.

    Args:
        text: Two numbers of steps, the first step 1.

    Returns:
        The steps.

    Raises:
        ValueError: If it is no such text.
    """
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError(
            "expected --profile=START:STOP, the first step to trace (at least 1) and "
            f"the last, as in --profile=100:110; got {text!r}."
        )
    return range(int(match[1]), int(match[2]) + 1)


def still_to_come(steps: range, done: int, last: int) -> range:
    """Those of the steps to trace that this part of a run does; says if that is less.

    Args:
        steps: What was asked for; none: no trace.
        done: Steps done before.
        last: The run's last step.

    Returns:
        The steps.

    Raises:
        ValueError: If the run ends before the first.
    """
    if not steps:
        return steps
    first, final = steps[0], steps[-1]
    if first > last:
        raise ValueError(
            f"--profile={first}:{final} begins after the run's end, step {last}."
        )
    left = range(max(first, done + 1), min(final, last) + 1)
    if not left:
        _logger.warning(
            "No trace: steps %d to %d are done, the run goes on after step %d.",
            *(first, final, done),
        )
    elif left != steps:
        _logger.warning("Of the steps to trace only %d to %d come.", left[0], left[-1])
    return left


class Profile:
    """Traces steps on the host and the devices of this process.

    Python's own calls are left out: to record them slows down what is measured.
    """

    def __init__(self, folder: PathLike = "", steps: range = range(0)) -> None:
        """Traces nothing yet.

        Args:
            folder: Where traces go.
            steps: Which steps; none: no trace is ever made.
        """
        self._folder, self._steps, self._is_on = folder, steps, False
        self._written: PathLike = folder  # on this machine

    def begins(self, step: int) -> bool:
        """Whether to `start` before this step."""
        return step in self._steps and not self._is_on

    def ends(self, step: int) -> bool:
        """Whether to `stop` after this step."""
        return self._is_on and step >= self._steps[-1]

    def start(self) -> None:
        """Begins a trace; all steps before are done."""
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0
        if scheme_of(self._folder):
            self._written = tempfile.mkdtemp(prefix="ser_jax_")
        jax.profiler.start_trace(str(self._written), profiler_options=options)
        self._is_on = True

    def stop(self) -> None:
        """Ends the trace, if there is one, and writes it."""
        if self._is_on:
            self._is_on = False
            jax.profiler.stop_trace()
            if self._written != self._folder:
                upload_folder(self._written, as_path(self._folder))
                shutil.rmtree(self._written)
            which = self._steps[0], self._steps[-1], self._folder
            _logger.info("Trace of steps %d to %d: %s", *which)

    close = stop  # as of what `contextlib.closing` closes
