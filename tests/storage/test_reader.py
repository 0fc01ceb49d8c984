"""Reading parts of a checkpoint for evaluation: verified, or refused."""

import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from helpers.checkpoints import (
    abstract,
    assert_same,
    empty,
    flip_byte,
    flip_digit_of_meta,
    make_state,
    save_steps,
    truncate_meta,
)

from ser_jax.storage.manifest import write_manifest
from ser_jax.storage.reader import (
    SavedState,
    find_checkpoint,
    read_meta,
    sound_steps,
)
from ser_jax.storage.record import CheckpointMismatchError, DamagedCheckpointError

# Orbax leaves the other reads of a broken array unawaited.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(autouse=True)
def unawaited_reads_end_with_their_test():
    yield
    gc.collect()


def load(checkpoint, target, name):
    return SavedState.at(epath.Path(checkpoint)).restore(target, name)


@pytest.mark.parametrize("name", ["params", "params/encoder"])
def test_a_part_is_loaded_and_verified(tmp_path, name):
    save_steps(tmp_path, [1, 2])
    part = make_state(2).params
    part = part if name == "params" else part["encoder"]
    target = abstract(part, 1)
    assert_same(load(tmp_path / "2", target, name), part)
    kernel = load(tmp_path / "1", target, name)
    assert not np.array_equal(jax.tree.leaves(kernel)[0], jax.tree.leaves(part)[0])
    flip_byte(tmp_path / "2")
    with pytest.raises(DamagedCheckpointError, match="2 is damaged: file .* changed"):
        load(tmp_path / "2", target, name)
    assert sound_steps(tmp_path) == [1]
    write_manifest(epath.Path(tmp_path / "2"))  # even if the list vouches for it
    with pytest.raises(DamagedCheckpointError, match=f"changed on disk: {name}"):
        load(tmp_path / "2", target, name)


def test_an_absent_part_is_an_error(tmp_path):
    save_steps(tmp_path, [1])
    target = abstract({"kernel": jnp.zeros((64, 64))}, 1)
    with pytest.raises(CheckpointMismatchError, match="target/kernel: .*found none"):
        load(tmp_path / "1", target, "target")
    with pytest.raises(FileNotFoundError, match=r"expected step 5 in .*found \[1\]"):
        find_checkpoint(tmp_path, 5)
    assert read_meta(tmp_path, 1) == {"step": 1}


@pytest.mark.parametrize("damage", [empty, truncate_meta, flip_digit_of_meta])
def test_a_damaged_record_is_an_error(tmp_path, damage):
    save_steps(tmp_path, [2, 3])
    damage(tmp_path / "3")
    with pytest.raises(ValueError, match="record in|Expecting|Unterminated"):
        read_meta(tmp_path)
    assert read_meta(tmp_path, 2) == {"step": 2}
