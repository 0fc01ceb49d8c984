"""Features on disk: computed once, resumed, replaced, and never trusted blindly."""

import json
from concurrent.futures import ThreadPoolExecutor

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


def read(folder, compute, key=KEY, **options):
    sizes = {"shape": (10, 3), "part_size": 4}
    return cached_features(folder, compute, key=key, **sizes, **options)


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


def test_another_folder_is_read_and_never_written(tmp_path):
    """Red if what it lacks is computed into it."""
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    with pytest.raises(OSError, match="killed"):
        read(run, Compute(fail_at=8))
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    again = Compute()
    assert_right(read(elsewhere, again, kept_in=run))
    assert len(again.calls) == 3
    assert before == {path.name: path.read_bytes() for path in run.iterdir()}
    read(run, Compute())
    unused = Compute()
    assert_right(read(tmp_path / "third", unused, kept_in=run))
    assert unused.calls == [] and not (tmp_path / "third").exists()


def test_what_is_in_use_stays_as_it_was(tmp_path):
    """Two evaluations of other pictures; red if the second writes into the first's."""
    features, labels = read(tmp_path, Compute())

    def others(start, stop):
        return 0 * FEATURES[start:stop], LABELS[start:stop]

    read(tmp_path, others, KEY | {"content": "other"})
    assert_right((features, labels))


def test_one_computes_and_the_other_waits_for_it(tmp_path):
    second = Compute()
    with ThreadPoolExecutor(1) as thread:

        def compute(start, stop):
            if start == 0:  # begins while this one computes
                futures.append(thread.submit(read, tmp_path, second))
            return FEATURES[start:stop], LABELS[start:stop]

        futures = []
        assert_right(read(tmp_path, compute))
        assert_right(futures[0].result())
    assert second.calls == []
