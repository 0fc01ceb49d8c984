"""Checkpoints: bitwise round trips, what is kept, and every kind of damage."""

import gc
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from helpers.checkpoints import (
    abstract,
    assert_same,
    delete_data,
    delete_state,
    empty,
    flip_byte,
    flip_digit_of_meta,
    make_state,
    placed,
    save_steps,
    truncate,
    truncate_meta,
)

from ser_jax.storage.checkpoint import Checkpointer, NoSpaceError, refuse_unusable
from ser_jax.storage.manifest import check_manifest, write_manifest
from ser_jax.storage.reader import read_meta
from ser_jax.storage.record import CheckpointMismatchError

# Orbax leaves the other reads of a broken array unawaited.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(autouse=True)
def unawaited_reads_end_with_their_test():
    yield
    gc.collect(1)  # what is older has not come from it


@pytest.mark.slow
@pytest.mark.parametrize("num_devices", [1, 8])
def test_restores_bitwise_on_other_devices(tmp_path, num_devices):
    state, meta = make_state(3), {"config": {"lr": 0.1, "sizes": [1, 2]}, "seed": 7}
    with Checkpointer(tmp_path) as checkpointer:
        assert checkpointer.save(3, placed(state, 8), meta)
    with Checkpointer(tmp_path) as checkpointer:
        assert checkpointer.latest_step() == 3
        assert checkpointer.read_meta() == meta
        target = abstract(state, num_devices)
        restored, found_meta = checkpointer.restore(target)
    assert found_meta == meta
    assert_same(restored, state)
    assert restored.params["encoder"]["kernel"].sharding.num_devices == num_devices


def test_a_donated_state_is_saved_as_it_was(tmp_path):
    values = np.arange(2_000_000, dtype=np.float32)
    overwrite = jax.jit(lambda x: x * 0 - 1, donate_argnums=0)
    state = placed({"x": jnp.asarray(values)})
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, state, {})
        jax.block_until_ready(overwrite(state["x"]))
        restored, _ = checkpointer.restore(abstract({"x": values}))
    np.testing.assert_array_equal(restored["x"], values)


def test_saves_each_step_once(tmp_path):
    state = placed(make_state())
    with Checkpointer(tmp_path, keep_latest=9) as checkpointer:
        assert checkpointer.save(3, state, {})
        assert checkpointer.save(7, state, {})
        assert not checkpointer.save(7, state, {})
        assert checkpointer.all_steps() == [3, 7]


@pytest.mark.slow
def test_keeps_newest_multiples_and_best_across_restarts(tmp_path):
    state = placed({"x": jnp.zeros(8)})
    options = {"keep_latest": 2, "best_metric": "knn"}
    scores = {1: float("nan"), 2: 0.9, 3: 0.5, 8: 0.1}
    for steps in [range(1, 5), range(5, 10)]:
        with Checkpointer(tmp_path, keep_every_steps=4, **options) as checkpointer:
            for step in steps:
                metrics = {"knn": scores[step]} if step in scores else None
                checkpointer.save(step, state, {}, metrics)
    with Checkpointer(tmp_path, **options) as checkpointer:
        assert checkpointer.all_steps() == [2, 4, 8, 9]


def test_metrics_without_the_best_one_are_refused(tmp_path):
    with Checkpointer(tmp_path, best_metric="knn") as checkpointer:
        with pytest.raises(ValueError, match=r"'knn'.*found \['loss'\]"):
            checkpointer.save(1, placed({"x": jnp.zeros(8)}), {}, {"loss": 1.0})
        assert checkpointer.all_steps() == []


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        delete_data,
        delete_state,
        empty,
        flip_byte,
        flip_digit_of_meta,
        truncate_meta,
    ],
)
def test_a_damaged_checkpoint_is_set_aside(tmp_path, caplog, damage):
    save_steps(tmp_path, [1, 2, 3])
    damage(tmp_path / "3")
    target = abstract(make_state())
    with Checkpointer(tmp_path, keep_latest=9) as checkpointer:
        state, meta = checkpointer.restore(target)
        assert meta == {"step": 2}
        assert_same(state, make_state(2))
        assert [p.name[:2] for p in (tmp_path / "damaged").iterdir()] == ["3-"]
        assert f"{tmp_path / '3'} is damaged" in caplog.text
        assert "step 2 is used instead" in caplog.text
        assert checkpointer.save(3, placed(make_state(3)), {"step": 3})
        assert checkpointer.all_steps() == [1, 2, 3]
        assert_same(checkpointer.restore(target)[0], make_state(3))


def test_a_changed_byte_is_noticed_in_every_file(tmp_path):
    """Also in parts that no array is read from; red if a file is not listed."""
    save_steps(tmp_path, [1])
    files = [f for f in (tmp_path / "1" / "state").rglob("*") if f.is_file()]
    assert len(files) > 3
    for file in files:
        intact = file.read_bytes()
        changed = bytearray(intact)
        changed[len(changed) // 2] ^= 1
        file.write_bytes(changed)
        with pytest.raises(ValueError, match=f"{file.name} changed on disk"):
            check_manifest(epath.Path(tmp_path / "1"))
        file.write_bytes(intact)
        check_manifest(epath.Path(tmp_path / "1"))


def test_a_changed_value_is_named(tmp_path, caplog):
    """Even if the list of files vouches for it."""
    save_steps(tmp_path, [1, 2])
    flip_byte(tmp_path / "2")
    write_manifest(epath.Path(tmp_path / "2"))
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.restore(abstract(make_state()))
    assert "values changed on disk: params/encoder/kernel" in caplog.text


def test_all_damaged_is_an_error_each_time(tmp_path):
    save_steps(tmp_path, [1, 2])
    truncate(tmp_path / "1")
    flip_byte(tmp_path / "2")
    for _ in range(2):  # A restarted job must not begin from scratch either.
        with Checkpointer(tmp_path) as checkpointer:
            with pytest.raises(ValueError, match=r"(?s)every checkpoint.*2: .*1: "):
                checkpointer.restore(abstract(make_state()))


def test_what_a_killed_process_left_is_not_a_checkpoint(tmp_path):
    save_steps(tmp_path, [1, 2])
    for step in [3, 9]:
        leftover = tmp_path / f"{step}.orbax-checkpoint-tmp"
        shutil.copytree(tmp_path / "2", leftover)
        (leftover / "commit_success.txt").unlink()
    with Checkpointer(tmp_path, keep_latest=9) as checkpointer:
        _, meta = checkpointer.restore(abstract(make_state()))
        assert meta == {"step": 2}
        assert checkpointer.save(3, placed(make_state(3)), {})
        assert checkpointer.all_steps() == [1, 2, 3]
    assert not list(tmp_path.glob("*tmp*"))


def test_the_newest_is_found_among_other_directories(tmp_path):
    save_steps(tmp_path, [1, 2])
    for name in ["3.orbax-checkpoint-tmp", "damaged", "run_7"]:
        (tmp_path / name).mkdir()
    assert read_meta(tmp_path) == {"step": 2}


def test_another_model_is_an_error_and_no_damage(tmp_path):
    save_steps(tmp_path, [1])
    with Checkpointer(tmp_path) as checkpointer:
        expected = (
            r"params/encoder/kernel: expected float32\[64, 72\], "
            r"found float32\[64, 64\]"
        )
        with pytest.raises(CheckpointMismatchError, match=expected):
            checkpointer.restore(abstract(make_state(width=72)))
        other = abstract(make_state().replace(opt_state=()))
        with pytest.raises(CheckpointMismatchError, match="expected none, found float"):
            checkpointer.restore(other)
    assert (tmp_path / "1").is_dir()


def test_no_checkpoint_is_none(tmp_path):
    with Checkpointer(tmp_path) as checkpointer:
        assert checkpointer.restore(abstract(make_state())) is None
        assert checkpointer.latest_step() is None
        with pytest.raises(FileNotFoundError, match="expected a checkpoint in"):
            checkpointer.read_meta()


def test_leaves_without_sharding_are_refused(tmp_path):
    save_steps(tmp_path, [1])
    with Checkpointer(tmp_path) as checkpointer:
        with pytest.raises(ValueError, match="^step has no sharding"):
            checkpointer.restore(jax.eval_shape(make_state))


def test_an_unwritable_directory_is_named(tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(OSError, match=f"cannot write checkpoints to {file}/run"):
        Checkpointer(file / "run")


def test_meta_that_is_not_json_is_refused(tmp_path):
    with Checkpointer(tmp_path) as checkpointer:
        with pytest.raises(TypeError, match="not JSON serializable"):
            checkpointer.save(1, placed({"x": jnp.zeros(8)}), {"a": object()})
        assert checkpointer.all_steps() == []


@pytest.mark.parametrize("name", ["my data [v2]/run", "what?", "all*/run"])
def test_folders_whose_checkpoints_could_not_be_read_are_refused(name, tmp_path):
    with pytest.raises(ValueError, match="without .* in its path.*could not be read"):
        refuse_unusable(tmp_path / name)
    refuse_unusable(tmp_path / "my data (v2)/run")


@pytest.mark.parametrize(
    "text, reason",
    [
        ("RESOURCE_EXHAUSTED: x\ny: No space left on device [28]", "No space left on"),
        ("OUT_OF_RANGE: Failed to write: File too large [27]", "File too large"),
        ("Disk quota exceeded", "quota exceeded"),
    ],
)
def test_no_space_is_said_in_one_line(tmp_path, monkeypatch, text, reason):
    """Red if it is not told what is missing, or which checkpoint is left."""
    with Checkpointer(tmp_path) as checkpointer:
        monkeypatch.setattr(checkpointer, "_saving", 9, raising=False)

        def fail():
            raise ValueError(text)

        with monkeypatch.context() as patch:
            patch.setattr(checkpointer._manager, "wait_until_finished", fail)
            for name in ("4", "8", "9.orbax-checkpoint-tmp"):
                (tmp_path / name).mkdir()
            said = rf"no space for checkpoint 9 in {tmp_path} \({reason}.* MiB are free"
            with pytest.raises(NoSpaceError, match=said) as error:
                checkpointer.wait()
    assert "checkpoint 8 is the last. Make room" in str(error.value)
    assert "\n" not in str(error.value)
