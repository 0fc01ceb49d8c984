"""Checkpoints in a bucket: verified without being read, set aside when damaged."""

import gc

import jax.numpy as jnp
import pytest
from helpers.checkpoints import abstract, assert_same, make_state, placed

from ser_jax.storage.checkpoint import Checkpointer, refuse_unusable
from ser_jax.storage.files import as_path, matching
from ser_jax.storage.reader import SavedState, sound_steps

# Orbax leaves the other reads of a broken array unawaited.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(autouse=True)
def unawaited_reads_end_with_their_test():
    yield
    gc.collect(1)


@pytest.fixture(scope="module")
def saved(bucket_server):
    """What two saves leave in a bucket, by name below the folder."""
    folder = as_path("gs://bucket-saved/checkpoints")
    with Checkpointer(folder, keep_latest=9) as checkpointer:
        for step in (1, 2):
            assert checkpointer.save(step, placed(make_state(step)), {"step": step})
    prefix = "bucket-saved/checkpoints/"
    return {
        name.removeprefix(prefix): bucket_server.objects[name]
        for name in bucket_server.names(prefix)
    }


@pytest.fixture
def folder(saved, bucket, bucket_server):
    for name, stored in saved.items():
        bucket_server.objects[f"{bucket}/checkpoints/{name}"] = stored
    return as_path(f"gs://{bucket}/checkpoints")


def largest(folder, step):
    """The object of a step that holds most of its arrays."""
    files = matching(folder / str(step) / "state", "d/*")
    return max(files, key=lambda file: len(file.read_bytes()))


def test_restores_bitwise_and_keeps_what_it_should(folder):
    with Checkpointer(folder, keep_latest=2) as checkpointer:
        state, meta = checkpointer.restore(abstract(make_state()))
        assert meta == {"step": 2}
        assert_same(state, make_state(2))
        assert checkpointer.save(3, placed(make_state(3)), {"step": 3})
        checkpointer.wait()
        assert checkpointer.all_steps() == [2, 3]
    assert not (folder / "1").exists()


def test_it_is_verified_by_the_list_of_objects(folder, bucket_server):
    bucket_server.requests.clear()
    SavedState.at(folder / "2")
    read = [r for r in bucket_server.requests if "alt=media" in r]
    assert read and not [r for r in read if "/state/" in r]


@pytest.mark.parametrize("damage", ["byte", "gone", "added", "uncommitted"])
def test_a_damaged_checkpoint_is_set_aside(folder, damage, caplog):
    file = largest(folder, 2)
    if damage == "byte":
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    elif damage == "gone":
        file.unlink()
    elif damage == "added":
        (file.parent / "more").write_bytes(b"")
    else:  # as a save leaves it that was killed
        (folder / "2" / "commit_success.txt").unlink()
    assert sound_steps(folder) == [1]
    with Checkpointer(folder, keep_latest=9) as checkpointer:
        state, meta = checkpointer.restore(abstract(make_state()))
        assert meta == {"step": 1}
        assert_same(state, make_state(1))
        if damage != "uncommitted":
            aside = matching(folder.parent, "checkpoints.damaged/*")
            assert [path.name[:2] for path in aside] == ["2-"]
            assert "changed on disk" in caplog.text
        assert not matching(folder, "2/*")
        assert checkpointer.save(2, placed(make_state(2)), {"step": 2})
    assert sound_steps(folder) == [1, 2]


def test_orbax_does_not_write_to_s3():
    with pytest.raises(ValueError, match="Orbax, which saves the checkpoints"):
        refuse_unusable("s3://bucket/run")
    with Checkpointer(as_path("gs://bucket-other/run")) as checkpointer:
        assert checkpointer.restore(abstract({"x": jnp.zeros(8)})) is None
