"""One writer to a folder."""

import contextlib
import datetime
import errno
import fcntl
import logging
import os
import socket
from collections.abc import Callable, Iterator

from ser_jax.storage.bucket import scheme_of
from ser_jax.storage.files import PathLike, as_path
from ser_jax.storage.lease import lease

_logger = logging.getLogger(__name__)

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def only_writer(
    folder: PathLike, *, wait: bool = False
) -> Iterator[Callable[[], None]]:
    """A block in which no other process enters a block like it on the same folder.

    The system drops the lock when its holder ends, however that ends; in a bucket it
    is `storage.lease`.

    Args:
        folder: Made if absent; the lock is its file `.lock`.
        wait: Until another process has left its block, instead of raising.

    Yields:
        What raises an OSError if the lock is another's by now.

    Raises:
        OSError: If another process is in such a block, naming it; or if the folder
            cannot be written to.
    """
    path = as_path(folder)
    if scheme_of(path):
        with lease(path, wait=wait) as check:
            yield check
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
        stream = open(path / ".lock", "a+")
    except OSError as error:
        raise OSError(
            f"cannot write to {path} ({error}); give a folder that this user can make "
            "or write to"
        ) from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            holder = stream.read().strip() or "another"
            if not wait:
                raise OSError(
                    f"{path} is being written to by {holder}. Wait for it, stop it, or "
                    "use another folder (for training, another --workdir)"
                ) from None
            _logger.info("%s is being written to by %s: waiting", path, holder)
            fcntl.flock(stream, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            _logger.warning(
                "%s has no locks (%s): start nothing else there", path, error
            )
        stream.truncate(0)
        now = datetime.datetime.now().strftime("%Y-%m-%d %H:%M:%S")
        stream.write(f"process {os.getpid()} on {socket.gethostname()} since {now}\n")
        stream.flush()
        yield lambda: None
