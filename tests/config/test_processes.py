"""Who says that a process is one of several: environments as schedulers set them."""

import pytest

from ser_jax.config.processes import scheduler

TASK = {
    "SLURM_JOB_ID": "7",
    "SLURM_NTASKS": "8",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_NODELIST": "node[1-2]",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
}
CHIPS = {"TPU_ML_PLATFORM": "JAX"}  # by importing JAX where there are some
POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}


@pytest.mark.parametrize(
    "environ, name",
    [
        (TASK, "SLURM"),
        ({k: v for k, v in TASK.items() if k != "SLURM_STEP_NUM_TASKS"}, "SLURM"),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, "Open MPI"),
        (CHIPS, "Cloud TPU"),
        (CHIPS | POD | {"TPU_WORKER_HOSTNAMES": "a,b"}, "Cloud TPU"),
        (CHIPS | {"TPU_PROCESS_ADDRESSES": "a:1,b:1"}, "Cloud TPU"),
        (
            CHIPS | {"TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_NUM_SLICES": "2"},
            "Cloud TPU",
        ),
        (POD | {"JOB_COMPLETION_INDEX": "0"}, "Kubernetes"),
    ],
)
def test_one_of_several(environ, name):
    assert scheduler(environ) == name


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"TPU_SKIP_MDS_QUERY": "1"},  # by importing JAX where there is no chip
        TASK | {"SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "1"},  # srun, one task
        {k: v for k, v in TASK.items() if "STEP" not in k},  # no srun at all
        TASK | {"SLURM_STEP_NUM_TASKS": "1"},  # a shell in an allocation of eight
        {"OMPI_COMM_WORLD_SIZE": "1"},
        CHIPS | {"TPU_SKIP_MDS_QUERY": "1"},
        CHIPS | {"TPU_WORKER_HOSTNAMES": "localhost"},
        POD,  # a notebook
    ],
)
def test_alone(environ):
    assert scheduler(environ) is None
