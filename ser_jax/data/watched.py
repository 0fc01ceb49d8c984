"""Batches that are waited for, but not for ever, from workers that end with us."""

import multiprocessing
import os
import pathlib
import queue
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any, Protocol, Self

_POLL_S = 0.2
_PARENT_POLL_S = 1.0
_GRACE_S = 10.0  # until what does not end is killed


class Closable(Protocol):
    """Batches that come one by one until they are closed."""

    def __next__(self) -> Any:
        """The next batch."""

    def close(self) -> None:
        """Ends what makes them."""


class Watched:
    """An endless iterator of batches whose next one comes in time, or not at all.

    A thread waits for the batch, so that the program stays free to notice a signal, and
    a worker that was stopped or has ended.
    """

    def __init__(self, make: Callable[[], Closable], timeout_s: float):
        """Starts the iterator.

        Args:
            make: Gives the iterator; processes that it starts are its workers.
            timeout_s: Seconds that a batch may take.
        """
        self._others = set(multiprocessing.active_children())
        self._known: set[BaseProcess] = set()
        self._timeout_s = timeout_s
        self._batches = make()
        self._is_asked = False
        self._ask: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._came: queue.SimpleQueue[tuple[Any, Exception | None]]
        self._came = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._fetch, daemon=True)
        self._thread.start()

    def _fetch(self) -> None:
        while self._ask.get():
            try:
                self._came.put((next(self._batches), None))
            except Exception as error:
                self._came.put((None, error))

    def __iter__(self) -> Self:
        """The iterator itself."""
        return self

    def __next__(self) -> Any:
        """The next batch."""
        return self.take()

    def take(self, wanted: Callable[[], bool] = lambda: True) -> Any:
        """The next batch, waited for while it is wanted.

        Args:
            wanted: Asked several times a second.

        Returns:
            The batch; None if it was no longer wanted before it came.

        Raises:
            TimeoutError: If it took longer than `timeout_s`, with what the workers do.
            ChildProcessError: If a worker has ended.
            Exception: What making it raised.
        """
        if not self._is_asked:
            self._ask.put(True)
            self._is_asked = True
        end = time.monotonic() + self._timeout_s
        while True:
            try:
                batch, error = self._came.get(timeout=_POLL_S)
                break
            except queue.Empty:
                if not wanted():
                    return None
                if time.monotonic() > end:
                    raise TimeoutError(
                        f"no batch came for {self._timeout_s:g} s (loader.timeout_s): "
                        f"{self._what_workers_do()}"
                    ) from None
        self._is_asked = False
        if error is None:
            if not self._known:
                self._workers()  # to be known when they have ended
            return batch
        if ended := [p for p in self._workers() if p.exitcode]:
            raise ChildProcessError(
                f"a loader worker {_said(ended[0])}. If memory ran out, fewer "
                "loader.num_workers or loader.prefetch_batches need less"
            ) from error
        raise error

    def close(self) -> None:
        """Ends the thread and the workers, those that do not answer too."""
        self._ask.put(False)
        if self._is_asked:  # the thread is in `next`
            self._thread.join(_GRACE_S)
            for worker in self._workers() if self._thread.is_alive() else ():
                worker.kill()
        closing = threading.Thread(target=self._batches.close, daemon=True)
        closing.start()
        closing.join(_GRACE_S)
        for worker in self._workers():
            worker.kill()

    def _workers(self) -> list[BaseProcess]:
        # What has ended is no active child any more.
        self._known |= set(multiprocessing.active_children()) - self._others
        return sorted(self._known, key=lambda p: p.pid or 0)

    def _what_workers_do(self) -> str:
        said = [f"worker {_said(worker)}" for worker in self._workers()]
        return ", ".join(said) or "the storage of the data may not answer"


def _said(worker: BaseProcess) -> str:
    """What a process does, as in "7 is stopped"."""
    if worker.exitcode is not None:
        how = f"with status {worker.exitcode}"
        if worker.exitcode < 0:
            how = f"by {signal.Signals(-worker.exitcode).name}"
        return f"{worker.pid} has ended {how}"
    try:
        stat = pathlib.Path(f"/proc/{worker.pid}/stat").read_text()
    except OSError:  # no Linux
        return f"{worker.pid} is there"
    state = stat.rpartition(")")[2].split()[0]
    is_stopped = state in ("T", "t")
    return f"{worker.pid} is {'stopped (SIGSTOP)' if is_stopped else 'at work'}"


def live_with_parent(index: int, count: int) -> None:
    """Sets up a worker process: what stops a run is said to the run, not to it.

    A signal to the whole group (a terminal, a scheduler) leaves the worker alone; it
    ends when the run closes it, or is gone.

    Args:
        index: Of the worker.
        count: Of all.
    """
    del index, count
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_PARENT_POLL_S)
    os._exit(1)
