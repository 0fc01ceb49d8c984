"""The most memory that a run has taken so far."""

import resource
import sys
from collections.abc import Iterable
from typing import Any

from ser_jax.methods.metric import Metric, Panel

_PANEL = Panel("peak memory, GB", starts_at_zero=True, is_noisy=False)
PEAK_MEMORY = Metric("peak_memory_gb", _PANEL, "device")
PEAK_HOST_MEMORY = Metric("peak_host_memory_gb", _PANEL, "host, without workers")
PEAKS = (PEAK_MEMORY, PEAK_HOST_MEMORY)

_MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024


def device_peak(devices: Iterable[Any]) -> int | None:
    """Most bytes that were in use at once on the fullest device, by its own word.

    Args:
        devices: Of this process.

    Returns:
        The bytes; None where devices keep no statistics, as CPUs do not.
    """
    stats = [device.memory_stats() or {} for device in devices]
    peaks = [s["peak_bytes_in_use"] for s in stats if "peak_bytes_in_use" in s]
    return max(peaks, default=None)


def peaks(devices: Iterable[Any]) -> dict[str, float]:
    """What is known of `PEAKS`, GB of 10^9 bytes.

    Args:
        devices: Of this process.

    Returns:
        Name of a metric -> the fullest device's; and what this process had in main
        memory, arrays of CPU devices among it, its loader's workers not.
    """
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_BYTES
    found = {PEAK_HOST_MEMORY.name: rss / 1e9}
    most = device_peak(devices)
    if most is not None:
        found[PEAK_MEMORY.name] = most / 1e9
    return found
