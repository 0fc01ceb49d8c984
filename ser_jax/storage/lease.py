"""One writer to a folder of a bucket: a lock that is an object, kept by renewing it.

There is nobody in a bucket who drops a lock when its holder ends. So it is written anew
every few seconds, each time on condition that it still is what this holder wrote last;
one that has not changed for a minute is taken over. No clocks are compared.
"""

import contextlib
import datetime
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from etils import epath

from ser_jax.storage.bucket import conditional
from ser_jax.storage.files import as_path

RENEW_S = 10.0
STALE_S = 60.0
_POLL_S = 1.0
_NAME = ".lock"

_logger = logging.getLogger(__name__)


@contextlib.contextmanager
def lease(folder: epath.Path, *, wait: bool) -> Iterator[Callable[[], None]]:
    """A block in which no other process enters a block like it on the same folder.

    A holder that does not answer for a minute (the machine stopped, the network gone)
    may lose it, and is told so by what is yielded.

    Args:
        folder: In a bucket.
        wait: Until another process has left its block, instead of raising.

    Yields:
        What raises an OSError once the lock is another's.

    Raises:
        OSError: If another process is in such a block, naming it; or if the folder
            cannot be written to.
    """
    held = _Held(folder, wait)
    try:
        yield held.check
    finally:
        held.release()


class _Held:
    """The lock, from when it is taken until it is released."""

    def __init__(self, folder: epath.Path, wait: bool):
        self._folder = folder
        self._lost = False
        self._over = threading.Event()
        try:
            self._store = conditional(folder)
            self._generation = self._take(wait)
        except OSError:
            raise
        except Exception as error:  # tensorstore raises many types
            raise OSError(
                f"cannot write to {folder} ({str(error).splitlines()[0]}); give a "
                "folder that this user can make or write to"
            ) from error
        self._thread = threading.Thread(target=self._renew, daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises if the lock is another's."""
        if self._lost:
            raise OSError(
                f"{self._folder} is being written to by {self._holder()}, which took "
                f"it over when this process had not renewed its lock for {STALE_S:g} "
                "s: nothing more is saved here"
            )

    def release(self) -> None:
        """Gives it back."""
        self._over.set()
        self._thread.join()
        with contextlib.suppress(Exception):  # else it is taken over in a minute
            self._store.write(_NAME, None, if_equal=self._generation).result()

    def _take(self, wait: bool) -> bytes:
        seen, since, told = None, time.monotonic(), False
        while True:
            found = self._store.read(_NAME).result()
            is_free = found.state == "missing" or _has_ended(found.value)
            if found.stamp.generation != seen:
                if seen is not None and not is_free and not wait:
                    raise OSError(
                        f"{self._folder} is being written to by "
                        f"{_name(found.value)}. Wait for it, stop it, or use another "
                        "folder (for training, another --workdir)"
                    )
                seen, since = found.stamp.generation, time.monotonic()
            if is_free or time.monotonic() - since > STALE_S:
                mine = self._store.write(_NAME, _content(), if_equal=seen).result()
                if mine.generation:
                    return mine.generation
                continue  # another was faster
            if not told:
                told = True
                _logger.info(
                    "%s is locked by %s: waiting for it%s.",
                    self._folder,
                    _name(found.value),
                    "" if wait else f", at most {STALE_S:g} s, to see if it still runs",
                )
            time.sleep(_POLL_S)

    def _renew(self) -> None:
        while not self._over.wait(RENEW_S):
            content = _content()
            try:
                written = self._store.write(
                    _NAME, content, if_equal=self._generation
                ).result()
                if not written.generation:  # it came through, its answer did not?
                    found = self._store.read(_NAME).result()
                    if found.value != content:
                        self._lost = True
                        _logger.error("The lock of %s is lost.", self._folder)
                        return
                    written = found.stamp
            except Exception as error:
                _logger.warning("Cannot renew the lock of %s: %s", self._folder, error)
                continue
            self._generation = written.generation

    def _holder(self) -> str:
        with contextlib.suppress(Exception):
            return _name(self._store.read(_NAME).result().value)
        return "another"


def _content() -> bytes:
    """Who holds the lock; different each time."""
    now = datetime.datetime.now().strftime("%Y-%m-%d %H:%M:%S")
    about = {
        "holder": f"process {os.getpid()} on {socket.gethostname()}, seen {now}",
        "process": _process(os.getpid()),
        "id": str(uuid.uuid4()),
    }
    return json.dumps(about).encode()


def _name(content: bytes) -> str:
    return _parsed(content).get("holder") or "another"


def _has_ended(content: bytes) -> bool:
    """Whether it is the lock of a process of this machine that is no more.

    Then there is no need to wait for a minute.
    """
    process = _parsed(content).get("process")
    return (
        isinstance(process, dict)
        and isinstance(process.get("pid"), int)
        and process.get("machine") == _machine()
        and _process(process["pid"]) != process
    )


def _parsed(content: bytes) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        if isinstance(found := json.loads(content), dict):
            return found
    return {}


def _process(pid: int) -> dict[str, Any] | None:
    """A process that runs here, as no other ever is; None if there is none."""
    try:
        stat = as_path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    if fields[0] in "ZX":  # it has ended, and its parent has not looked yet
        return None
    return {"pid": pid, "started": fields[19], "machine": _machine()}


def _machine() -> list[str]:
    """This machine since it started, and this container on it."""
    try:
        boot = as_path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return [socket.gethostname(), boot, os.readlink("/proc/self/ns/pid")]
    except OSError:
        return [str(uuid.uuid4())]  # no other is like it
