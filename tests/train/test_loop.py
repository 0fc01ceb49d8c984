"""The loop: exact resume, damage, signals, refusals, what a run leaves behind."""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

import jax
import numpy as np
import pytest
from helpers.runs import (
    assert_close_state,
    assert_same_state,
    final_state,
    losses,
    run,
)
from helpers.support import (
    program_env,
    start_main,
    tiny_config,
    wait_for_step,
    write_config,
)
from tensorboard.backend.event_processing import event_accumulator

from ser_jax import main
from ser_jax.storage.files import as_path
from ser_jax.storage.metrics import read_metrics
from ser_jax.storage.reader import SavedState
from ser_jax.train import chips, sharding, steps
from ser_jax.train import loop as train
from ser_jax.train.lost import LOST

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, data_dir):
    """Four steps in one go, two of them traced: workdir, state, losses, summary."""
    workdir = tmp_path_factory.mktemp("uninterrupted")
    config = tiny_config()
    config.dataset.data_dir = data_dir
    config.log_every_steps, config.checkpoint.every_steps = 1, 2
    config.optimizer.warmup_epochs = 0.0
    summary = run(config, workdir, 4, profile=range(2, 4))
    state, step = final_state(config, workdir)
    assert step == 4
    return workdir, state, losses(workdir), summary


def test_two_then_two_equals_four_bit_for_bit(config, tmp_path, uninterrupted):
    run(config, tmp_path, 2)
    run(config, tmp_path, 4)
    state, step = final_state(config, tmp_path)
    assert step == 4
    assert_same_state(state, uninterrupted[1])
    assert losses(tmp_path) == uninterrupted[2]


def test_resume_on_another_number_of_devices(
    config, tmp_path, uninterrupted, monkeypatch
):
    """From eight to two; from two to eight, and two processes to one, below."""
    tmp_path = shutil.copytree(uninterrupted[0], tmp_path / "run")
    shutil.rmtree(tmp_path / "checkpoints" / "4")
    two = sharding.make_mesh(jax.devices()[:2])
    monkeypatch.setattr(train, "make_mesh", lambda: two)
    run(config, tmp_path, 4)
    for step, loss in losses(tmp_path).items():
        np.testing.assert_allclose(loss, uninterrupted[2][step], rtol=1e-6)
    assert_close_state(final_state(config, tmp_path)[0], uninterrupted[1], config)


def test_two_processes_equal_one(config, tmp_path, uninterrupted, release):
    """launch/local_processes.sh, each of one device, resumed by one process of 8.

    For a release each of four: a program for more devices takes longer to compile.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    script = pathlib.Path(__file__).parents[2] / "launch" / "local_processes.sh"
    path = write_config(config, tmp_path / "config.py")
    done = subprocess.run(
        [
            *("bash", script, "2", path, tmp_path, "--config.max_steps=2"),
            *(
                "--config.checkpoint.every_steps=1000",
                "--config.checkpoint.every_minutes=1e-9",
            ),
        ],
        env=program_env(num_devices=4 if release else 1) | {"SER_JAX_PORT": str(port)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "checkpoints" / "1").is_dir()  # by the clock
    run(config, tmp_path, 4)
    for step, loss in losses(tmp_path).items():
        np.testing.assert_allclose(loss, uninterrupted[2][step], rtol=1e-6)
    assert_close_state(final_state(config, tmp_path)[0], uninterrupted[1], config)


def test_kill_9_and_rerun_gives_the_same_parameters(config, tmp_path, uninterrupted):
    process = start_main(config, tmp_path, max_steps=4)
    wait_for_step(process, tmp_path, 3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "summary.json").exists()
    run(config, tmp_path, 4)
    assert_same_state(final_state(config, tmp_path)[0], uninterrupted[1])


def test_a_flipped_byte_is_noticed_and_the_run_still_ends_the_same(
    config, tmp_path, uninterrupted, caplog
):
    tmp_path = shutil.copytree(uninterrupted[0], tmp_path / "run")
    files = (tmp_path / "checkpoints" / "4" / "state").rglob("*")
    largest = max((f for f in files if f.is_file()), key=lambda f: f.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 0x10
    largest.write_bytes(data)
    run(config, tmp_path, 4)
    assert "is damaged" in caplog.text
    assert list((tmp_path / "checkpoints" / "damaged").iterdir())
    assert_same_state(final_state(config, tmp_path)[0], uninterrupted[1])


def test_a_contradicting_config_is_refused_with_the_keys(config, uninterrupted):
    config.objective.temperature = 0.7
    config.optimizer.weight_decay = 0.3
    with pytest.raises(ValueError, match="another experiment") as error:
        run(config, uninterrupted[0], 6)
    assert "objective.temperature: 0.2 -> 0.7" in str(error.value)
    assert "optimizer.weight_decay: 0.1 -> 0.3" in str(error.value)


def test_settings_that_change_nothing_may_change(config, tmp_path, uninterrupted):
    tmp_path = shutil.copytree(uninterrupted[0], tmp_path / "run")
    config.log_every_steps, config.loader.num_threads = 3, 1
    config.checkpoint.keep_latest = 1
    config.knn.every_epochs = 1.0
    run(config, tmp_path, 5, probe=None)
    assert final_state(config, tmp_path)[1] == 5
    last = read_metrics(tmp_path)[-1]
    assert last["step"] == 5 and "knn_accuracy" not in last


def test_other_data_is_refused(config, uninterrupted):
    config.dataset.train_split = "train[:50%]"
    with pytest.raises(ValueError, match="data: .*1500.* -> .*750"):
        run(config, uninterrupted[0], 6)


def test_a_diverging_run_names_step_and_last_good_checkpoint(plain, tmp_path):
    plain.optimizer.base_lr = 1e30
    plain.optimizer.warmup_epochs = 0.0
    plain.checkpoint.every_steps = 1
    with pytest.raises(FloatingPointError, match=r"at step \d+.*checkpoints/\d+") as e:
        run(plain, tmp_path, 8)
    named = int(str(e.value).split("checkpoints/")[1].split(".")[0])
    failed = int(str(e.value).split("at step ")[1].split(".")[0])
    steps = [int(p.name) for p in (tmp_path / "checkpoints").glob("[0-9]*")]
    assert named == max(steps) < failed


def test_what_a_run_leaves_behind(uninterrupted):
    workdir, _, _, summary = uninterrupted
    rows = read_metrics(workdir)
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4]
    wanted = {
        *("loss", "loss_inv", "loss_equiv", "grad_norm", "grad_norm_equiv", "lr"),
        *("ema_momentum", "embedding_std", "contrastive_accuracy", "data_wait_frac"),
        *("equiv_weight", "grad_norm_block_01", "grad_norm_block_02"),
        *("lost_s_start", "lost_s_wait", "lost_s_probe", "peak_host_memory_gb"),
    }
    for row in rows:
        if "loss" in row:
            assert wanted <= row.keys()
            assert row["grad_norm_equiv"] > 0
            np.testing.assert_allclose(
                row["loss"], row["loss_inv"] + row["loss_equiv"], rtol=1e-5
            )
    assert rows[0]["step"] == 0 and rows[0]["knn_accuracy"] > 0.2
    assert 1 < rows[0]["rankme"] < 16
    stored = json.loads((workdir / "summary.json").read_text())
    assert rows[0]["knn_accuracy_pixels"] == stored["knn_accuracy_pixels"] > 0.9
    for key in (
        *("loss_first", "loss_last", "knn_accuracy", "knn_accuracy_untrained"),
        *("images_per_s", "wall_s", "steps", "config", "mfu", "peak_memory_gb"),
    ):
        assert key in stored
    assert 0 < stored["step_ms_p50"] <= stored["step_ms_p95"]
    assert stored["steps"] == 4 and stored["loss_last"] == summary["loss_last"]
    assert stored["config"]["objective"]["name"] == "moco_v3"
    parameters = (workdir / "parameters.txt").read_text()
    assert "| encoder/blocks/attn/qkv/kernel " in parameters and "Total: " in parameters
    events = event_accumulator.EventAccumulator(str(next(workdir.rglob("*tfevents*"))))
    events.Reload()
    assert [e.step for e in events.Scalars("loss")] == [1, 2, 3, 4]


def test_the_trace_holds_the_steps_that_were_asked_for(uninterrupted):
    """Red if there is none, or one of other steps or of what lies beside them."""
    (file,) = (uninterrupted[0] / "profile").rglob("*.xplane.pb")
    planes = jax.profiler.ProfileData.from_file(str(file)).planes
    events = [e for plane in planes for line in plane.lines for e in line.events]
    steps = [dict(e.stats)["step_num"] for e in events if e.name == "train"]
    assert steps == [2, 3]
    names = {event.name for event in events}
    assert "waiting for data" in names and "probing" not in names


def test_nothing_compiles_between_the_first_step_and_the_last(
    config, tmp_path, uninterrupted, monkeypatch
):
    """Red if a step's shapes or types differ from those compiled for."""
    dispatched, compiled = [], []

    def listen(name, duration, **_):
        if name == "/jax/core/compile/backend_compile_duration":
            compiled.append(len(dispatched))

    def counted(batch, mesh):
        dispatched.append(None)
        return sharding.shard_batch(batch, mesh)

    monkeypatch.setattr(steps, "shard_batch", counted)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        config.checkpoint.every_steps = 10**6
        run(config, tmp_path, 6)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    # Saving the last step compiles its checksums.
    assert compiled and not set(compiled) - {0, 6}


def test_what_is_lost_adds_up_over_the_parts_of_a_run(config, tmp_path, monkeypatch):
    """Red if a part forgets those before it, or a loss is no part of the whole."""
    sheet = chips.Chip(flops=1e9, bandwidth=1.0)
    monkeypatch.setattr(train, "chip", lambda kind: sheet)

    def slow(variables):
        time.sleep(0.2)
        return {"knn_accuracy": 0.5}

    before = run(config, tmp_path, 2, lambda *_: slow)  # before it and after it
    assert before["lost_s_probe"] > 0.4
    # What came after the checkpoint (its own saving) is no part of a run that goes on.
    meta = SavedState.at(as_path(tmp_path / "checkpoints" / "2")).record.meta
    saved, saved_s = meta["lost_s"], meta["wall_s"]
    assert saved["lost_s_probe"] > 0.4
    after = run(config, tmp_path, 4, probe=None)
    lost = [metric.name for metric in LOST]
    assert all(after[name] >= saved.get(name, 0) >= 0 for name in lost)
    assert after["lost_s_start"] > saved["lost_s_start"] and after["lost_s_save"] > 0
    assert saved_s + sum(after[x] - saved.get(x, 0) for x in lost) < after["wall_s"]
    assert 0 < sum(after[name] for name in lost) < after["wall_s"]
    flops = after["accounting"]["flops_per_image"]
    share = flops * after["images_per_s"] / (8 * sheet.flops)
    assert after["mfu"] == pytest.approx(share)


def test_a_finished_run_is_left_alone(config, uninterrupted):
    workdir, _, _, first = uninterrupted
    before = (workdir / "summary.json").read_text()
    again = run(config, workdir, 4)
    assert (workdir / "summary.json").read_text() == before
    assert again["loss_last"] == first["loss_last"] and again["steps"] == 4


def test_the_program_adds_the_curves_and_the_table(config, uninterrupted, capsys):
    workdir = uninterrupted[0]
    config.max_steps = 4
    main.run(config, str(workdir))
    assert (workdir / "curves.png").stat().st_size > 10_000
    printed = capsys.readouterr().out
    assert "| loss_last " in printed
    assert str(workdir / "curves.png") in printed and "config/" not in printed


def test_a_damaged_newest_checkpoint_hides_no_contradiction(
    config, tmp_path, uninterrupted
):
    tmp_path = shutil.copytree(uninterrupted[0], tmp_path / "run")
    (tmp_path / "checkpoints" / "4" / "meta" / "metadata").write_text("{")
    config.objective.temperature = 0.7
    with pytest.raises(ValueError, match="objective.temperature: 0.2 -> 0.7"):
        run(config, tmp_path, 6)


def test_the_best_probed_state_is_kept(plain, tmp_path):
    """Red if probed states are not saved, or their score does not reach the policy."""
    scores = iter([0.1, 0.9, 0.2, 0.3, 0.4])
    plain.checkpoint.every_steps = 10**6
    plain.knn.every_epochs = 1 / 93
    plain.checkpoint.keep_latest = 1
    run(plain, tmp_path, 4, lambda *_: lambda params: {"knn_accuracy": next(scores)})
    steps = {int(p.name) for p in (tmp_path / "checkpoints").glob("[0-9]*")}
    assert steps == {1, 4}


def test_labelled_data_without_the_held_out_split_trains_unprobed(
    plain, tmp_path, caplog
):
    plain.knn.every_epochs = 1.0
    plain.dataset.eval_split = "validation"
    run(plain, tmp_path, 1)
    assert (
        "No k-NN probe" in caplog.text and "--config.dataset.eval_split" in caplog.text
    )


@pytest.mark.skipif(os.name != "posix", reason="paths below a file")
def test_a_workdir_that_cannot_be_written_is_refused(plain, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(OSError, match="cannot write"):
        run(plain, pathlib.Path(blocked) / "workdir", 2)
