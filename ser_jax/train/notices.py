"""Google's cloud says, before a machine goes, that it will: maintenance, preemption."""

import contextlib
import http.client
import logging
import os
import pathlib
import threading
import urllib.request
from collections.abc import Callable, Iterator

_PRODUCT = pathlib.Path("/sys/class/dmi/id/product_name")
# Key of the metadata server -> the value that means the end, and its name here. What
# is moved to another machine as it runs (MIGRATE_ON_HOST_MAINTENANCE) goes on there.
_ENDS = {
    "maintenance-event": (
        "TERMINATE_ON_HOST_MAINTENANCE",
        "TERMINATE_ON_HOST_MAINTENANCE",
    ),
    "preempted": ("TRUE", "PREEMPTED"),
}
_POLL_S = 2.0  # a spot machine has 30 s
_TIMEOUT_S = 5.0

_logger = logging.getLogger(__name__)


@contextlib.contextmanager
def listening(tell: Callable[[str], None]) -> Iterator[None]:
    """A block in which a thread listens for such notices, on Google's machines.

    Elsewhere it does nothing. `GCE_METADATA_HOST` names another metadata server, as in
    Google's own libraries.

    Args:
        tell: Called once, in that thread, with the notice's name:
            "TERMINATE_ON_HOST_MAINTENANCE" or "PREEMPTED".

    Yields:
        Nothing.

    Reference: cloud.google.com/compute/docs/metadata/getting-live-migration-notice,
    cloud.google.com/compute/docs/instances/create-use-spot.
    """
    host = _metadata_host()
    is_over = threading.Event()
    if host is not None:
        what = (host, tell, is_over)
        threading.Thread(target=_listen, args=what, daemon=True).start()
    try:
        yield
    finally:
        is_over.set()


def _metadata_host() -> str | None:
    if host := os.environ.get("GCE_METADATA_HOST"):
        return host
    try:
        is_googles = _PRODUCT.read_text().startswith("Google")
    except OSError:  # no such file: no PC, or no Linux
        return None
    return "metadata.google.internal" if is_googles else None


def _listen(host: str, tell: Callable[[str], None], is_over: threading.Event) -> None:
    is_said = False
    while not is_over.is_set():
        for key, (value, name) in _ENDS.items():
            found = None
            try:
                found = _read(host, key)
            except (OSError, http.client.HTTPException) as error:
                if not (is_said or is_over.is_set()):
                    _logger.warning("Cannot ask %s for %s: %s", host, key, error)
                is_said = True
            if found == value and not is_over.is_set():
                tell(name)
                return
        is_over.wait(_POLL_S)


def _read(host: str, key: str) -> str:
    request = urllib.request.Request(
        f"http://{host}/computeMetadata/v1/instance/{key}",
        headers={"Metadata-Flavor": "Google"},
    )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=_TIMEOUT_S) as answer:
        return answer.read().decode().strip()
