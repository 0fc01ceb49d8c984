"""Peaks of memory: what devices say, and what CPUs do not."""

import pathlib
import re
import types

import pytest

from ser_jax.train.memory import peaks


def device(stats):
    return types.SimpleNamespace(memory_stats=lambda: stats)


def test_the_fullest_device_counts():
    found = [{"peak_bytes_in_use": 3 * 10**9}, {"peak_bytes_in_use": 5 * 10**9}]
    assert peaks(map(device, found))["peak_memory_gb"] == 5.0


@pytest.mark.parametrize("stats", [None, {}, {"bytes_limit": 1}])
def test_where_devices_keep_no_statistics_there_is_the_hosts_alone(stats):
    """Red if host memory passes for a device's, or is in another unit."""
    found = peaks([device(stats)])
    assert found.keys() == {"peak_host_memory_gb"}
    status = pathlib.Path("/proc/self/status").read_text()
    its_own = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024 / 1e9
    assert found["peak_host_memory_gb"] == pytest.approx(its_own, rel=0.01)
