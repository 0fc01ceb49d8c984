"""Features on disk: computed once, resumed, replaced, and never trusted blindly."""

import json

import numpy as np
import pytest

from ser_jax.evaluate.features.cache import cached_features

FEATURES = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
LABELS = np.arange(10) % 4
KEY = {"checkpoint": "a", "columns": (1, 2)}


class Compute:
    """The rows asked for; says which, and fails at `fail_at`."""

    def __init__(self, fail_at=None):
        self.calls, self.fail_at = [], fail_at

    def __call__(self, start, stop):
        if start == self.fail_at:
            raise OSError("killed")
        self.calls.append((start, stop))
        return FEATURES[start:stop], LABELS[start:stop]


def read(folder, compute, key=KEY):
    return cached_features(folder, compute, key=key, shape=(10, 3), part_size=4)


def assert_right(found):
    np.testing.assert_array_equal(found[0], FEATURES)
    np.testing.assert_array_equal(found[1], LABELS)


def test_computed_once_in_parts_then_mapped_from_disk(tmp_path):
    first, second = Compute(), Compute()
    assert_right(read(tmp_path / "made", first))
    assert first.calls == [(0, 4), (4, 8), (8, 10)]
    found = read(tmp_path / "made", second)
    assert_right(found)
    assert second.calls == [] and isinstance(found[0], np.memmap)


def test_an_interrupted_extraction_goes_on_where_it_stopped(tmp_path):
    with pytest.raises(OSError, match="killed"):
        read(tmp_path, Compute(fail_at=8))
    again = Compute()
    assert_right(read(tmp_path, again))
    assert again.calls == [(8, 10)]


def test_another_key_replaces_what_was_there(tmp_path):
    read(tmp_path, Compute())
    again = Compute()
    assert_right(read(tmp_path, again, KEY | {"checkpoint": "b"}))
    assert len(again.calls) == 3


@pytest.mark.parametrize("name, first", [("features", 4), ("labels", 8)])
def test_a_damaged_part_is_computed_anew(tmp_path, caplog, name, first):
    read(tmp_path, Compute())
    array = np.load(tmp_path / f"{name}.npy", mmap_mode="r+")
    array[first] += 1
    array.flush()
    again = Compute()
    assert_right(read(tmp_path, again))
    assert [start for start, _ in again.calls] == [first]
    assert f"examples from {first} on are not what was written" in caplog.text


@pytest.mark.parametrize("name", ["features.npy", "labels.npy", "parts.json"])
@pytest.mark.parametrize("how", ["cut short", "removed"])
def test_files_that_cannot_be_read_are_made_again(tmp_path, name, how):
    read(tmp_path, Compute())
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).unlink()
    if how == "cut short":
        (tmp_path / name).write_bytes(content[: len(content) // 2])
    again = Compute()
    assert_right(read(tmp_path, again))
    assert len(again.calls) == 3
    assert len(json.loads((tmp_path / "parts.json").read_text())["checksums"]) == 3
