"""Whether this process is one of several, by what was set in its environment."""

from collections.abc import Mapping

# Where srun starts a task, as JAX reads it; a batch script alone lacks the second.
_OF_A_TASK = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID")


def scheduler(environ: Mapping[str, str]) -> str | None:
    """Who started this process as one of several.

    No server is asked, so it costs nothing where there is none. JAX then finds
    addresses and ranks in its own way.

    Args:
        environ: The environment, after JAX was imported.

    Returns:
        A name for the log; None of a process that is alone, such as the only task of a
        job, a batch script without `srun`, or a pod that is no part of an indexed job.
    """
    if _number(environ, "OMPI_COMM_WORLD_SIZE") > 1:
        return "Open MPI"
    if _number_of_tasks(environ) > 1:
        return "SLURM"
    if _is_on_a_slice(environ):
        return "Cloud TPU"
    if {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= environ.keys():
        return "Kubernetes"
    return None


def _number(environ: Mapping[str, str], name: str) -> int:
    text = environ.get(name, "")
    return int(text) if text.isdecimal() else 1


def _number_of_tasks(environ: Mapping[str, str]) -> int:
    """Of this step of a SLURM job: an interactive one has one, whatever the job has."""
    if not all(name in environ for name in _OF_A_TASK):
        return 1
    of_job = _number(environ, "SLURM_NTASKS")
    if "SLURM_STEP_NUM_TASKS" not in environ:
        return of_job
    return min(of_job, _number(environ, "SLURM_STEP_NUM_TASKS"))


def _is_on_a_slice(environ: Mapping[str, str]) -> bool:
    """Whether there may be other hosts; on a lone one JAX then finds one process."""
    if "TPU_ML_PLATFORM" not in environ:  # importing JAX sets it where it sees chips
        return False
    names = ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES")
    hosts = [environ[name] for name in names if name in environ]
    if hosts:
        return "," in hosts[0] or _number(environ, "MEGASCALE_NUM_SLICES") > 1
    return "TPU_SKIP_MDS_QUERY" not in environ
