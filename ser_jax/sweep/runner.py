"""A sweep: runs one after the other, with a progress line; signals stop them."""

import datetime
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Self, TextIO

from etils import epath

from ser_jax.data.progress import ProgressLine
from ser_jax.storage.files import PathLike, as_path, growing_file
from ser_jax.storage.metrics import read_metrics
from ser_jax.sweep.grid import SweepRun, expand, parse_grid
from ser_jax.sweep.layers import layers_picture
from ser_jax.sweep.records import (
    Record,
    is_recorded,
    read_records,
    record_of,
    write_records,
)
from ser_jax.sweep.report import collect, write_report
from ser_jax.train.preemption import SIGNALS, STOPPED

_PROGRAM = (sys.executable, "-m", "ser_jax.main")
_EVALUATE = (sys.executable, "-m", "ser_jax.evaluate")
_LOG, _EVALUATE_LOG = "output.txt", "evaluate.txt"
_RECORDS = "records.jsonl"
_OWN_FLAGS = ("--checkpoint", "--weights", "--encoder", "--results", "--step")
_POLL_S = 1.0


def sweep(
    config_file: str,
    grid: str,
    seeds: Sequence[int],
    workdir: PathLike,
    *,
    metrics: Sequence[str] = ("knn_accuracy",),
    evaluate: Sequence[str] = (),
    records_file: PathLike | None = None,
    overrides: Sequence[str] = (),
    command: str = "",
) -> str:
    """Runs what has no record yet; writes and prints the report.

    Args:
        config_file: As for `--config`.
        grid: See `parse_grid`.
        seeds: A run of every cell for each.
        workdir: Folder of the sweep.
        metrics: What the report is of, see `collect`.
        evaluate: What `ser_jax.evaluate` is told of every run that has ended; nothing:
            it is not asked.
        records_file: What has been done; None is `records.jsonl` in the workdir. A run
            with a record there is not done again, whether its folder is there or not.
        overrides: Arguments for every run: "--config.total_epochs=5".
        command: For the report.

    Returns:
        The text of `sweep.md`.

    Raises:
        ValueError: Before anything is run, if the grid, a cell's config, what is in
            the workdir or a record is refused.
        SweepStopped: After the report, if a signal ended the sweep, or only a run.
        ChildProcessError: After the report, if a run failed.
    """
    folder = as_path(workdir)
    if len(set(seeds)) < max(1, len(seeds)):
        raise ValueError(f"--seeds: expected different numbers, got {list(seeds)}.")
    runs = expand(config_file, parse_grid(grid), seeds, folder, overrides)
    for run in runs:
        if "knn_accuracy" in metrics and not run.config["knn"]["every_epochs"]:
            raise ValueError(
                f"cell {run.cell} has no k-NN probe: set knn.every_epochs above 0, or "
                "name another metric by --metric, like loss_inv."
            )
    for flag in evaluate:
        if flag.partition("=")[0] in _OWN_FLAGS:
            raise ValueError(
                f"--evaluate: {flag} is not for you to say, the sweep does."
            )
    path = folder / _RECORDS if records_file is None else as_path(records_file)
    work = _Work(runs, path, tuple(evaluate))
    print(f"{len(runs)} runs, {len(runs) - len(work.todo())} of them done.", flush=True)
    with Interrupt() as interrupt:
        failures, stopped = _run_all(work, interrupt)
    records = work.done()
    about = {
        "command": command,
        "date": datetime.date.today().isoformat(),
        "device": ", ".join(sorted({record.device for record in records})) or "-",
    }
    results = {metric: collect(runs, records, metric) for metric in metrics}
    folder.mkdir(parents=True, exist_ok=True)  # all may be in another file
    report = write_report(folder, results, about, len(seeds))
    layers_picture(folder / "layers.png", records)
    print(f"\n{report}\n\nWritten to {folder}.")
    if interrupt.received:
        raise SweepStopped(
            f"stopped by {interrupt.received.name}, {len(records)} of {len(runs)} runs "
            "finished. The same command goes on from here.",
            interrupt.received.name,
        )
    if failures:
        raise ChildProcessError(
            f"{len(failures)} of {len(runs)} runs failed; the same command tries them "
            "again:\n  " + "\n  ".join(failures)
        )
    if stopped:
        raise SweepStopped(
            f"{len(stopped)} of {len(runs)} runs were stopped by a signal, saved: "
            f"{', '.join(str(run.workdir) for run in stopped)}. The same command goes "
            "on with them."
        )
    return report


class SweepStopped(InterruptedError):
    """A sweep ended before its time, and goes on when it is run again.

    Attributes:
        stopped_by: Name of the signal; "SIGTERM" where only a run had it.
    """

    def __init__(self, message: str, stopped_by: str = "SIGTERM"):
        """The error.

        Args:
            message: What stopped, and what to do.
            stopped_by: Name of the signal.
        """
        super().__init__(message)
        self.stopped_by = stopped_by


class Interrupt:
    """A signal that stops a run, passed on to the one under way: it saves and ends.

    Listens inside its `with` block, not to what is ignored. A second signal kills the
    run.
    """

    received: signal.Signals | None = None
    _process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Starts listening."""
        self._previous: dict[signal.Signals, Any] = {
            number: signal.signal(number, self._receive)
            for number in SIGNALS
            if signal.getsignal(number) != signal.SIG_IGN
        }
        return self

    def __exit__(self, *_: object) -> None:
        """Gives the signals back to whoever had them."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def pass_to(self, process: subprocess.Popen[bytes]) -> None:
        """From now on, signals go to this run.

        Args:
            process: The run.
        """
        self._process = process
        if self.received:  # while it was being started
            process.terminate()

    def _receive(self, number: int, _: object) -> None:
        if self._process is not None:
            if self.received:
                self._process.kill()
            else:
                self._process.terminate()
        self.received = signal.Signals(number)


class SweepProgress:
    """Steps done over all runs, their rate, and the time left."""

    def __init__(
        self,
        runs: Sequence[SweepRun],
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Starts now.

        Args:
            runs: Runs still to be done.
            stream: Where the line goes; None is standard error.
            clock: Seconds from any origin.
        """
        self._runs = list(runs)
        self._steps = {run.workdir: _last_step(run) for run in runs}
        total = sum(run.stop_step for run in runs)
        self._line = ProgressLine(total, stream=stream, clock=clock)

    def update(self, run: SweepRun) -> None:
        """Looks at how far a run is, and writes a line if one is due.

        Args:
            run: The run under way.
        """
        self._steps[run.workdir] = _last_step(run)
        self._line.update(sum(self._steps.values()), lambda: self._text(run))

    def give_up(self, run: SweepRun, why: str) -> None:
        """Counts a run's steps no more, and says why.

        Args:
            run: A run that ended before its time.
            why: "failed: ...", or the like.
        """
        self._line.total -= run.stop_step - self._steps[run.workdir]
        self._line.say(f"{run.cell} seed {run.seed} {why}")

    def close(self) -> None:
        """Lets whatever is written next begin on a line of its own."""
        self._line.close()

    def _text(self, run: SweepRun) -> str:
        line = (
            f"run {self._runs.index(run) + 1}/{len(self._runs)}: {run.cell} seed "
            f"{run.seed}, step {self._steps[run.workdir]}/{run.stop_step}"
        )
        return f"{line}, {self._line.rate:.3g} steps/s" if self._line.rate else line


class _Work:
    """What is to be done, and what has been: a record each."""

    def __init__(
        self, runs: Sequence[SweepRun], path: epath.Path, evaluate: tuple[str, ...]
    ):
        """Reads the records; runs that have ended and are not evaluated get theirs.

        Args:
            runs: All runs.
            path: File of the records.
            evaluate: What `ser_jax.evaluate` is told; nothing: it is not asked.

        Raises:
            ValueError: If a record, or a run's folder, is of another experiment.
        """
        self.evaluate = evaluate
        self._runs, self._path = runs, path
        self._records = read_records(path)
        for run in self.todo():
            if run.is_finished() and not evaluate:
                self.record(run)

    def todo(self) -> list[SweepRun]:
        """Runs that lack a record."""
        return [
            run
            for run in self._runs
            if not is_recorded(run, self._records, self.evaluate)
        ]

    def done(self) -> list[Record]:
        """The records of this sweep's runs, in their order."""
        left = self.todo()
        return [self._records[r.cell, r.seed] for r in self._runs if r not in left]

    def record(self, run: SweepRun) -> None:
        """Writes the record of a run that is done.

        Args:
            run: The run.
        """
        record = record_of(run, self.evaluate)
        # Read anew: another sweep may have written to the file meanwhile.
        self._records = read_records(self._path) | {(run.cell, run.seed): record}
        write_records(self._path, self._records.values())


def _run_all(work: _Work, interrupt: Interrupt) -> tuple[list[str], list[SweepRun]]:
    """Runs one after the other; what failed, a text each, and what was stopped.

    Seed by seed: a sweep that is not done yet has all cells to compare.
    """
    failures, stopped = [], []
    todo = sorted(work.todo(), key=lambda run: run.seed)
    progress = SweepProgress(todo)
    for run in todo:
        if interrupt.received:
            break
        status, log = _run(run, work.evaluate, interrupt, progress)
        if status == 0:
            work.record(run)
        elif status in STOPPED and not interrupt.received:
            stopped.append(run)
            progress.give_up(run, "was stopped by a signal, saved")
        elif not interrupt.received:
            problem = _problem(log, status)
            failures.append(f"{run.workdir}: {problem}")
            progress.give_up(run, f"failed: {problem}")
    progress.close()
    return failures, stopped


def _run(
    run: SweepRun,
    evaluate: Sequence[str],
    interrupt: Interrupt,
    progress: SweepProgress,
) -> tuple[int, epath.Path]:
    """Trains and evaluates; the exit status, 0 if all was done, and the log."""
    log = run.workdir / _LOG
    if not run.is_finished():
        command = [*_PROGRAM, *run.arguments, f"--workdir={run.workdir}"]
        status = _call(command, log, interrupt, lambda: progress.update(run))
        if status or not run.is_finished():
            return status or 1, log
    if evaluate:
        log = run.workdir / _EVALUATE_LOG
        command = [*_EVALUATE, f"--checkpoint={run.workdir}", *evaluate]
        return _call(command, log, interrupt, lambda: progress.update(run)), log
    return 0, log


def _call(
    command: Sequence[str],
    log: epath.Path,
    interrupt: Interrupt,
    look: Callable[[], None],
) -> int:
    """Exit status of a program, looked at now and then."""
    with growing_file(log) as out:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a terminal's Ctrl-C reaches it through us alone
        )
        try:
            interrupt.pass_to(process)
            while process.poll() is None:
                look()
                try:
                    process.wait(_POLL_S)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            process.kill()  # does nothing to one that has ended
    look()
    return process.returncode


def _problem(log: epath.Path, status: int) -> str:
    """What went wrong, as a program's output ends with it."""
    text = log.read_bytes().decode(errors="replace").strip()
    message = text.rpartition("ser_jax: error: ")[2].partition("\n(--traceback")[0]
    if message == text:  # no message of ours: how a traceback ends
        message = text.rpartition("\n")[2] or f"exit status {status}"
    return f"{message} (see {log})"


def _last_step(run: SweepRun) -> int:
    rows = read_metrics(run.workdir)
    return int(rows[-1]["step"]) if rows else 0
