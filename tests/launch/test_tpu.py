"""launch/tpu.sh, with a stand-in for gcloud: what is called, and what comes of it."""

import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest
from helpers import ROOT
from helpers.short_run import free_port, steps_of, write_short_run
from helpers.support import program_env

STAND_INS = pathlib.Path(__file__).parent / "stand_ins"
PAGE = (ROOT / "docs" / "tpu.md").read_text()
COMMANDS = [shlex.split(c)[2:] for c in re.findall(r"^bash .*tpu\.sh .*$", PAGE, re.M)]
NAMES = [words[0] for words in COMMANDS]


class Slice:
    """A folder that stands for a slice, and the script that is to work on it."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.env = program_env(num_devices=1)
        self.env |= {
            "PATH": f"{STAND_INS}:{self.env['PATH']}",
            "STAND_IN": str(folder),
            "TEST_PYTHON": sys.executable,
            "XDG_STATE_HOME": str(folder / "kept"),
            "SER_JAX_POLL_S": "0.1",
        }

    def __call__(self, *words, status=0):
        done = subprocess.run(
            ["bash", "launch/tpu.sh", *words],
            cwd=ROOT,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def calls(self):
        """What gcloud was asked since the last time."""
        path = self.folder / "calls.jsonl"
        calls = [json.loads(line) for line in path.read_text().splitlines()]
        path.unlink()
        return calls

    def says(self, *answers):
        """What the workers say of the run, look by look; nothing sent is executed."""
        (self.folder / "says.json").write_text(json.dumps(answers))

    def kept(self):
        """What the script knows of the slice, by file."""
        folder = self.folder / "kept" / "ser_jax" / "ser"
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    def mark(self, name):
        (self.folder / "kept" / "ser_jax" / "ser" / name).touch()


@pytest.fixture
def on_slice(tmp_path):
    yield Slice(tmp_path)
    for pid in tmp_path.glob("worker*/ser_jax_run/pid"):  # of a test that failed
        subprocess.run(["kill", "-KILL", "--", f"-{pid.read_text().strip()}"])


@pytest.fixture(scope="module")
def as_running(tmp_path_factory):
    on_slice = Slice(tmp_path_factory.mktemp("slice"))
    on_slice.says("none")
    for words in COMMANDS[:4]:
        on_slice(*words)
    on_slice.calls()
    return on_slice.folder


@pytest.fixture
def running(as_running, tmp_path):
    """A slice that was created, set up and told to train; its calls forgotten."""
    return Slice(shutil.copytree(as_running, tmp_path / "slice"))


GCLOUD = ["gcloud", "compute", "tpus"]
QUEUE = [*GCLOUD, "queued-resources"]
IN_ZONE = ["ser", "--zone=us-west4-a"]
SCOPES = "--scopes=https://www.googleapis.com/auth/cloud-platform"
CREATE = [
    *(*QUEUE, "create", *IN_ZONE, "--node-id=ser"),
    *("--accelerator-type=v5litepod-64", "--runtime-version=v2-alpha-tpuv5-lite"),
    *(SCOPES, "--spot"),
]
DESCRIBE = [
    *(*QUEUE, "describe", *IN_ZONE, "--format=value(state.state)"),
    "--verbosity=error",
]
DELETE = [*QUEUE, "delete", *IN_ZONE, "--force", "--quiet"]
WORKER = "bash ser_jax/launch/tpu_worker.sh"
TRAIN = (
    "configs/moco_v3_ser.py gs://BUCKET/runs/ser "
    "--config.dataset.data_dir=/dev/shm/data "
)


def ssh(command):
    return [*GCLOUD, "tpu-vm", "ssh", *IN_ZONE, "--worker=all", f"--command={command}"]


LOOK = ssh(
    f'if [ -e ser_jax ]; then {WORKER} status; else echo "run on $(hostname): none"; fi'
)
SETUP = [
    [*GCLOUD, "tpu-vm", "scp", IN_ZONE[1], "--worker=all", "ser_jax.tgz", "ser:"],
    ssh(f"mkdir -p ser_jax && tar -xzf ser_jax.tgz -C ser_jax && {WORKER} setup"),
]
STAGE = ssh(
    "mkdir -p /dev/shm/data && gcloud storage rsync -r gs://BUCKET/data /dev/shm/data"
)
CALLS = {
    "create": [CREATE],
    "setup": [DESCRIBE, LOOK, *SETUP],
    "stage": [STAGE],
    "run": [ssh(f"{WORKER} start {TRAIN}")],
    "status": [DESCRIBE, LOOK],
    "logs": [ssh(f"{WORKER} logs -n 20 ")],
    "stop": [DESCRIBE, ssh(f"{WORKER} stop ")],
    "resume": [DESCRIBE, DESCRIBE, LOOK, *SETUP, STAGE, ssh(f"{WORKER} start {TRAIN}")],
    "watch": [DESCRIBE, LOOK],
    "delete": [[*DELETE, "--async"]],
}
AGAIN = [*CALLS["resume"][1:-1], ssh(f"{WORKER} start_unless_stopped {TRAIN}")]


def without_folders(calls):
    return [[re.sub(r".*/(?=ser_jax\.tgz)", "", w) for w in words] for words in calls]


def test_the_page_has_all_commands():
    assert NAMES == list(CALLS)


@pytest.mark.parametrize("words", COMMANDS, ids=NAMES)
def test_what_gcloud_is_asked(running, words):
    running.says("0 0")
    running(*words)
    assert without_folders(running.calls()) == CALLS[words[0]]


@pytest.mark.parametrize("words", COMMANDS, ids=NAMES)
def test_a_dry_run_prints_that_and_asks_nobody(running, words):
    printed = running(*words, "--dry_run")
    calls = [shlex.split(line) for line in printed.splitlines()]
    calls = without_folders(c for c in calls if c[0] == "gcloud")
    expected = CALLS[words[0]]
    if words[0] == "watch":  # one look, and what follows if the slice is gone
        expected = [DESCRIBE, LOOK, DELETE, CREATE, *AGAIN]
    assert calls == expected and not (running.folder / "calls.jsonl").exists()


def test_a_dry_run_changes_nothing_that_is_kept(running):
    kept = running.kept()
    for words in (["run", "ser", "C", "W"], ["stage", "ser", "S"], ["watch", "ser"]):
        running(*words, "--dry_run")
    running("create", "ser", "v4-8", "z", "--dry_run")
    assert running.kept() == kept


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("gcloud"), reason="gcloud is not installed")
def test_gcloud_itself_takes_these_words(tmp_path):
    """Red if it refuses them before it looks for an account."""
    env = os.environ | {
        "CLOUDSDK_CONFIG": str(tmp_path),
        "CLOUDSDK_CORE_PROJECT": "p",
    }
    (tmp_path / "ser_jax.tgz").touch()
    reserved = [*CREATE[:-1], "--reserved"]
    rsync = STAGE[-1].split("&& ")[1].split()
    for words in (CREATE, reserved, DESCRIBE, *SETUP, CALLS["delete"][0], rsync):
        done = subprocess.run(
            words, env=env, cwd=tmp_path, capture_output=True, text=True
        )
        assert "not currently have an active account" in done.stderr, done.stderr


@pytest.mark.parametrize(
    "type_, image",
    [
        ("v5p-16", "v2-alpha-tpuv5"),
        ("v6e-8", "v2-alpha-tpuv6e"),
        ("v4-8", "tpu-ubuntu2204-base"),
    ],
)
def test_each_generation_has_its_image(on_slice, type_, image):
    on_slice("create", "ser", type_, "z", "--reserved")
    (words,) = on_slice.calls()
    assert f"--runtime-version={image}" in words and words[-1] == "--reserved"


@pytest.mark.parametrize(
    "looks, status, said, asked",
    [
        (["running", "0 0"], 0, "done", [DESCRIBE, LOOK] * 2),
        (["75 75", "75 75", "0 0"], 0, "interrupted", AGAIN),
        (["134 lost", "134 lost", "0 0"], 0, "interrupted", AGAIN),
        (["none none", "none", "0 0"], 0, "interrupted", AGAIN),
        ([None, "0 0"], 0, "unreachable", [DESCRIBE, LOOK] * 2),
        (["0 stopped"], 0, "was stopped", [DESCRIBE, LOOK]),
        (["1 75", "running", "0 0"], 0, "done", [DESCRIBE, LOOK] * 3),
        (["1 75"], 1, "failed", [DESCRIBE, LOOK] * 2 + CALLS["logs"]),
    ],
)
def test_what_watch_makes_of_the_workers_words(running, looks, status, said, asked):
    """Red if one word counts for another, or a run that failed is run again."""
    running.says(*looks)
    assert said in running("watch", "ser", status=status)
    calls = without_folders(running.calls())
    if asked == AGAIN:  # by `resume_unless_stopped`
        asked = [*[DESCRIBE, LOOK, DESCRIBE], *AGAIN, DESCRIBE, LOOK]
    assert calls == asked


@pytest.mark.parametrize("state", ["SUSPENDED", "FAILED"])
def test_watch_replaces_a_slice_that_was_taken(running, state):
    (running.folder / "state").write_text(state)
    running.says("none none", "0 0")
    assert "done" in running("watch", "ser")
    calls = without_folders(running.calls())
    assert calls == [DESCRIBE, DESCRIBE, DELETE, CREATE, *AGAIN, DESCRIBE, LOOK]


@pytest.mark.parametrize("state", ["ACTIVE", "SUSPENDED", None])
def test_what_stop_stopped_watch_never_resumes(running, state):
    if state is None:
        (running.folder / "state").unlink()
    else:
        (running.folder / "state").write_text(state)
    running("stop", "ser")
    running.calls()
    assert "was stopped" in running("watch", "ser")
    assert not (running.folder / "calls.jsonl").exists()
    running("resume_unless_stopped", "ser", status=1)  # one that watch began before
    assert not any("start" in words[-1] for words in running.calls())


def test_a_wait_for_a_slice_ends_when_it_is_stopped(running):
    (running.folder / "state").write_text("WAITING_FOR_RESOURCES")
    running.mark("stopped")
    said = running("resume_unless_stopped", "ser", status=1)
    assert "was stopped" in said and running.calls() == [DESCRIBE, DESCRIBE]


def test_a_slice_that_somebody_deleted_is_not_replaced_but_one_of_watch_is(running):
    (running.folder / "state").unlink()
    assert "was deleted" in running("watch", "ser", status=1)
    assert running.calls() == [DESCRIBE]
    running.mark("recreating")  # watch itself was killed between delete and create
    running.says("none", "0 0")
    running("watch", "ser")
    assert CREATE in running.calls()


def test_code_is_not_changed_below_a_run(running):
    running.says("running running")
    assert "first: bash launch/tpu.sh stop ser" in running("setup", "ser", status=1)
    assert without_folders(running.calls()) == CALLS["setup"][:2]


@pytest.mark.parametrize(
    "words, status, said",
    [
        ([], 2, "usage: bash launch/tpu.sh"),
        (["create", "ser", "v5litepod-8"], 2, "usage"),
        (["run", "ser", "configs/digits.py"], 2, "usage"),
        (["begin", "ser"], 2, "usage"),
        (["watch", "ser"], 1, "tpu.sh create ser TYPE ZONE"),
    ],
)
def test_mistakes(on_slice, words, status, said):
    assert said in on_slice(*words, status=status)


@pytest.fixture
def worker(tmp_path):
    """launch/tpu_worker.sh, for a Python that saves for a moment when asked to end.

    Asked twice it ends at once, as training does.
    """
    python = tmp_path / "ser_jax_venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    program = "trap 'trap - HUP TERM; sleep 0.5; exit 75' TERM HUP; touch {}\n"
    ready = tmp_path / "ready"
    python.write_text(
        "#!/bin/bash\n" + program.format(ready) + "while true; do sleep 0.05; done\n"
    )
    python.chmod(0o755)

    def call(*words):
        done = subprocess.run(
            ["bash", ROOT / "launch" / "tpu_worker.sh", *words],
            env=os.environ | {"HOME": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        if words[0].startswith("start") and done.returncode == 0:
            while not ready.exists() and (tmp_path / "ser_jax_run" / "pid").exists():
                time.sleep(0.02)
        return done.stdout.strip().rpartition(": ")[2], done.returncode

    yield call
    call("stop")


def test_a_worker_keeps_what_became_of_its_run(worker, tmp_path):
    assert worker("status") == ("none", 0)
    worker("start", "CONFIG", "WORKDIR")
    assert worker("status") == ("running", 0)
    assert worker("start", "CONFIG", "WORKDIR")[1] == 1  # not two
    pid = int((tmp_path / "ser_jax_run" / "pid").read_text())
    for number in (signal.SIGTERM, signal.SIGHUP):  # a machine that shuts down
        os.killpg(pid, number)
    while worker("status") == ("running", 0):
        time.sleep(0.05)
    assert worker("status") == ("75", 0)
    (tmp_path / "ser_jax_run" / "status").unlink()  # it had no time to
    assert worker("status") == ("lost", 0)


def test_a_worker_starts_what_was_stopped_only_when_a_person_says_so(worker):
    worker("start", "CONFIG", "WORKDIR")
    assert worker("stop") == ("stopped", 0)
    worker("start_unless_stopped", "CONFIG", "WORKDIR")
    assert worker("status") == ("stopped", 0)
    worker("start", "CONFIG", "WORKDIR")
    assert worker("status") == ("running", 0)


@pytest.mark.slow
def test_the_page_from_nothing_to_a_finished_run(on_slice):
    """docs/tpu.md, with all that is sent executed: stopped by hand, then preempted."""
    folder = on_slice.folder
    on_slice.env["JAX_COORDINATOR_PORT"] = free_port()
    data_dir = folder / "bucket" / "data"
    places = {
        "gs://BUCKET/data": data_dir,
        "gs://BUCKET/runs/ser": folder / "run",
        "configs/moco_v3_ser.py": write_short_run(folder, data_dir),
        "/dev/shm/data": folder / "shm",
    }
    said = {}
    for words in COMMANDS:
        for name, place in places.items():
            words = [word.replace(name, str(place)) for word in words]
        if words[0] == "stage":
            words.append(str(folder / "shm"))
        if words[0] == "watch":
            (folder / "preempt").touch()
        said[words[0]] = on_slice(*words)
        if words[0] == "setup":
            assert "[tpu,gcs]" in (folder / "worker1" / "installed").read_text()
        if words[0] == "stop":
            assert "was stopped" in on_slice("watch", "ser")
    assert said["status"].count(": running") == said["stop"].count(": stopped") == 2
    ended = [path.read_text() for path in folder.glob("worker*.ended")]
    assert ended == ["75\n", "75\n"]
    assert "SUSPENDED" in said["watch"] and "done" in said["watch"]
    summary = json.loads((folder / "run" / "summary.json").read_text())
    steps = steps_of(folder / "run")
    assert steps == list(range(1, summary["steps"] + 1))
    assert steps[-1] == int((folder / "max_steps").read_text())
    assert not (folder / "worker0").exists()
