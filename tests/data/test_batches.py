"""Batches: threads write rows in their places, few tasks a batch, errors in order."""

import threading
from concurrent.futures import ThreadPoolExecutor

import grain
import numpy as np
import pytest

from ser_jax.data.batches import Ahead, Batches

STEPS = {"num_rows": 64, "first": 3, "between_batches": 100}


def batches_of(make, num_threads=2, **options):
    examples = grain.MapDataset.source(range(1000)).map(make)
    return Batches(examples, num_threads=num_threads, **STEPS | options)


def numbered(index):
    return {"a": {"b": np.full((2, 3), index % 256, np.uint8)}, "c": np.int64(index)}


def test_rows_are_the_examples_of_their_places():
    batches = batches_of(numbered, between_rows=2)
    batch = batches[2]
    np.testing.assert_array_equal(batch["c"], 203 + 2 * np.arange(64))
    assert batch["a"]["b"].shape == (64, 2, 3) and batch["a"]["b"].dtype == np.uint8
    np.testing.assert_array_equal(batch["a"]["b"][:, 1, 2], batch["c"] % 256)
    assert len(batches) == 9
    batches.close()


def test_a_task_is_many_rows(monkeypatch):
    """Red if each row is handed over on its own: a process then tops out early."""
    tasks, submit = [], ThreadPoolExecutor.submit
    monkeypatch.setattr(
        ThreadPoolExecutor,
        "submit",
        lambda self, *task: (tasks.append(task), submit(self, *task))[1],
    )
    ahead = Ahead(batches_of(numbered), iter(range(5)), num_ahead=2)
    assert [batch["c"][0] for batch in ahead] == [3, 103, 203, 303, 403]
    ahead.close()
    assert len(tasks) == 5 * 4


def test_batches_are_made_ahead_and_no_more():
    seen = set()
    ahead = Ahead(
        batches_of(lambda i: (seen.add(i // 100), numbered(i))[1]), range(9), 2
    )
    next(ahead)
    ahead._batches._pool.shutdown()  # once all that has begun is done
    assert seen == {0, 1, 2}


def test_an_error_comes_with_its_batch_and_the_first_of_it():
    def make(index):
        if index in (150, 120, 301):
            raise KeyError(index)
        return numbered(index)

    ahead = Ahead(batches_of(make), range(9), 4)
    assert next(ahead)["c"][0] == 3
    with pytest.raises(KeyError, match="120"):
        next(ahead)
    assert next(ahead)["c"][0] == 203
    ahead.close()


def test_closing_leaves_undone_what_has_not_begun():
    seen, go_on = [], threading.Event()

    def make(index):
        seen.append(index)
        go_on.wait(10.0)
        return numbered(index)

    batches = batches_of(make, num_threads=1)
    for step in range(5):
        batches.begin(step)
    threading.Timer(0.1, go_on.set).start()
    batches.close()
    assert len(seen) == 16  # the rows of one task


def test_examples_of_different_shapes_are_refused():
    batches = batches_of(lambda i: {"c": np.zeros(i % 2 + 1)}, num_threads=1)
    with pytest.raises(ValueError, match=r"'c' is \[1\] of one example and \[2\]"):
        batches[0]
    batches.close()
