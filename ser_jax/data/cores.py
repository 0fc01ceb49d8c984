"""How many processes and threads the loader is to have on a host."""

import os

_CORES_A_WORKER, _FEWEST_CORES = 12, 16


def num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def workers_for(num_workers: int) -> int:
    """How many worker processes a setting means here.

    Python lets one thread of a process run at a time, which is enough until a dozen
    cores are kept busy by it; more of them need processes.

    Args:
        num_workers: The number; -1 leaves it to the cores that this process may use.

    Returns:
        The number: of -1, none below 16 cores, else one for every 12.
    """
    if num_workers >= 0:
        return num_workers
    return num_cores() // _CORES_A_WORKER if num_cores() >= _FEWEST_CORES else 0


def advice(num_threads: int, num_workers: int) -> str:
    """What makes a loader faster on this host.

    Args:
        num_threads: Its threads, in each worker.
        num_workers: Its workers; 0: none.

    Returns:
        A sentence that names the setting to change, and to what.
    """
    cores, threads = num_cores(), num_threads * max(1, num_workers)
    if not num_workers and cores >= _FEWEST_CORES:
        return (
            f"Set loader.num_workers=-1: {workers_for(-1)} processes on {cores} cores."
        )
    if threads < cores:
        enough = -(-cores // max(1, num_workers))
        return f"Raise loader.num_threads from {num_threads} to {enough}."
    return (
        f"Its {threads} threads fill the {cores} cores: it takes more cores for a "
        "device, smaller pictures or faster storage."
    )
