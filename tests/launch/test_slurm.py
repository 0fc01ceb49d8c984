"""launch/slurm.sh, with stand-ins for SLURM's commands: ends, signals, starts anew."""

import json
import pathlib
import re
import shlex
import subprocess
import time

import pytest
from helpers import ROOT
from helpers.short_run import free_port, steps_of, write_short_run
from helpers.support import program_env

STAND_IN = pathlib.Path(__file__).parent / "stand_ins" / "slurm"
PAGE = (ROOT / "docs" / "slurm.md").read_text()
(BLOCK, *_) = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [shlex.split(line) for line in BLOCK.splitlines()]
SUBMIT = ["sbatch", "--ntasks-per-node=2", str(ROOT / "launch" / "slurm.sh")]
JOB = "4242"


class Cluster:
    """A folder from which jobs are submitted, and their environment."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        bin_ = folder / "bin"
        bin_.mkdir()
        for name in ("sbatch", "srun", "scontrol", "scancel", "squeue"):
            (bin_ / name).symlink_to(STAND_IN)
        self.env = program_env(num_devices=1)
        self.env |= {"PATH": f"{bin_}:{self.env['PATH']}", "STAND_IN": str(folder)}

    def training_is(self, script):
        """Replaces Python by a shell script."""
        python = self.folder / "bin" / "python"
        python.write_text(f"#!/bin/bash\n{script}\n")
        python.chmod(0o755)

    def start(self, *words, **environ):
        environ = self.env | environ
        return subprocess.Popen(words, cwd=self.folder, env=environ)

    def submit(self, *words, **environ):
        job = self.start(*SUBMIT, *words, "CONFIG", "WORKDIR", "--x=a b", **environ)
        assert job.wait(timeout=60) == 0
        return self

    def read(self, name):
        path = self.folder / name
        return path.read_text() if path.exists() else ""


@pytest.fixture
def cluster(tmp_path):
    yield (cluster := Cluster(tmp_path))
    if not cluster.read("ended"):
        for group in cluster.read("groups").split():
            subprocess.run(["kill", "-KILL", "--", f"-{group}"], capture_output=True)


def step_of(cluster):
    (call,) = [json.loads(line) for line in cluster.read("srun.jsonl").splitlines()]
    return [word for word in call if word.startswith("--")]


def test_the_step_that_a_job_starts(cluster):
    cluster.training_is('echo "$SLURM_PROCID: $*"')
    cluster.submit()
    train = "-m ser_jax.main --config=CONFIG --workdir=WORKDIR --x=a b"
    log = cluster.read(f"ser_jax-{JOB}.out").splitlines()
    assert sorted(log) == [f"{rank}: {train}" for rank in (0, 1)]
    assert step_of(cluster)[:2] == ["--kill-on-bad-exit=1", "--cpus-per-task=24"]


def test_a_job_of_several_nodes_in_a_container(tmp_path):
    cluster = Cluster(tmp_path)
    cluster.training_is("echo $SLURM_PROCID")
    submit = ["sbatch", "--nodes=3", *SUBMIT[1:], "CONFIG", "WORKDIR"]
    image = {"CONTAINER": "ser.sqsh", "CONTAINER_MOUNTS": "/shared:/shared"}
    assert cluster.start(*submit, **image).wait(timeout=60) == 0
    assert sorted(cluster.read(f"ser_jax-{JOB}.out").split()) == list("012345")
    assert step_of(cluster)[2:5] == [
        "--container-image=ser.sqsh",
        f"--container-workdir={tmp_path}",
        f"--container-mounts={tmp_path}:{tmp_path},/shared:/shared",
    ]


def test_a_dead_rank_ends_the_job_at_once(cluster):
    cluster.training_is("[ $SLURM_PROCID = 1 ] && exit 3; sleep 300")
    cluster.submit()
    assert int(cluster.read("ended")) > 75 and not cluster.read("requeues")


def test_75_starts_the_job_anew_when_all_ranks_have_saved(cluster):
    """Red if the first rank to end has the others killed, or the log is cut."""
    cluster.training_is("""
    [ -e saved ] && exit 0
    echo "first $SLURM_PROCID"
    [ $SLURM_PROCID = 1 ] && { sleep 0.5; touch saved; }
    exit 75""")
    cluster.submit()
    assert cluster.read("requeues") == "requeued\n" and cluster.read("ended") == "0"
    log = cluster.read(f"ser_jax-{JOB}.out")
    assert log.count("first") == 2 and (cluster.folder / "saved").exists()
    assert not list(cluster.folder.glob("*.again"))


def test_an_error_is_not_hidden_by_another_rank_that_saved(cluster):
    cluster.training_is("[ $SLURM_PROCID = 1 ] && { sleep 0.3; exit 1; }; exit 75")
    cluster.submit()
    assert cluster.read("ended") == "1" and not cluster.read("requeues")


@pytest.mark.parametrize("words, again", [(["--signal=TERM"], True), ([], False)])
def test_a_signal_saves_and_only_scancel_alone_is_for_good(cluster, words, again):
    cluster.training_is("""
    [ -e again ] && exit 0
    trap 'touch again; sleep 0.3; touch saved.$SLURM_PROCID; exit 75' TERM
    touch ready.$SLURM_PROCID
    while true; do sleep 0.05; done""")
    job = cluster.start(*SUBMIT, "CONFIG", "WORKDIR")
    while len(list(cluster.folder.glob("ready.*"))) < 2:
        time.sleep(0.02)
    assert cluster.start("scancel", *words, JOB).wait(timeout=60) == 0
    assert job.wait(timeout=60) == 0
    while len(list(cluster.folder.glob("saved.*"))) < 2:
        time.sleep(0.02)
    assert bool(cluster.read("requeues")) == again


@pytest.mark.slow
def test_the_page_from_a_submission_to_a_finished_run(cluster, release):
    """docs/slurm.md, executed for a release: two processes, preempted once."""
    if not release:
        pytest.skip("test_tpu.py trains as much")
    folder = cluster.folder
    places = {
        "launch/slurm.sh": ROOT / "launch" / "slurm.sh",
        "configs/moco_v3_ser.py": write_short_run(folder, folder / "data"),
        "/shared/runs/ser": folder / "run",
        "/shared/data": folder / "data",
    }
    cluster.env["JAX_COORDINATOR_PORT"] = free_port()
    submit, *others, cancel = COMMANDS
    for name, place in places.items():
        submit = [word.replace(name, str(place)) for word in submit]
    submit.insert(1, "--ntasks-per-node=1")
    job = cluster.start(*submit)
    metrics = folder / "run" / "metrics.jsonl"
    while not metrics.exists() or '"loss"' not in metrics.read_text():
        assert job.poll() is None, cluster.read(f"ser_jax-{JOB}.out")
        time.sleep(0.1)
    for words in others:
        assert cluster.start(*words).wait(timeout=60) == 0
    assert cancel == ["scancel", JOB] and job.wait(timeout=300) == 0
    assert cluster.read("ended") == "0", cluster.read(f"ser_jax-{JOB}.out")
    assert cluster.read("requeues") == "requeued\n"
    summary = json.loads((folder / "run" / "summary.json").read_text())
    steps = steps_of(folder / "run")
    assert steps == list(range(1, summary["steps"] + 1))
    assert steps[-1] == int(cluster.read("max_steps"))
    assert "One of several processes (SLURM)" in cluster.read(f"ser_jax-{JOB}.out")
