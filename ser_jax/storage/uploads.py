"""Files that grow, in a bucket: written here, and uploaded whole now and then.

Appending to an object keeps the last write alone, and says nothing.
"""

import logging
import os
import shutil
import tempfile
import threading

from etils import epath

from ser_jax.storage.files import as_path, whole_file

_logger = logging.getLogger(__name__)


class Uploads:
    """A folder of this machine whose files a folder in a bucket gets.

    Attributes:
        folder: The folder of this machine.
    """

    def __init__(self, target: epath.Path, *, every_s: float = 30.0):
        """Starts uploading.

        Args:
            target: The folder in the bucket.
            every_s: Seconds between uploads of what has changed.
        """
        self.folder = as_path(tempfile.mkdtemp(prefix="ser_jax_"))
        self._target = target
        self._every_s = every_s
        self._uploaded: dict[str, tuple[int, int]] = {}
        self._one_at_a_time = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._now_and_then, daemon=True)
        self._thread.start()

    def now(self) -> None:
        """Uploads what has changed; raises what goes wrong."""
        with self._one_at_a_time:
            for entry in os.scandir(self.folder):
                stat = entry.stat()
                version = (stat.st_size, stat.st_mtime_ns)
                if self._uploaded.get(entry.name) == version:
                    continue
                with (
                    open(entry.path, "rb") as source,
                    whole_file(self._target / entry.name) as copy,
                ):
                    shutil.copyfileobj(source, copy)
                self._uploaded[entry.name] = version

    def close(self) -> None:
        """Uploads the rest and removes the folder."""
        self._over.set()
        self._thread.join()
        self.now()
        shutil.rmtree(self.folder)

    def _now_and_then(self) -> None:
        while not self._over.wait(self._every_s):
            try:
                self.now()
            except Exception as error:  # the clients raise many types
                _logger.warning(
                    "Cannot upload to %s yet: %s", self._target, str(error)[:200]
                )
