import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from absl import flags

from ser_jax.data import loader, sources
from ser_jax.data.crops import CropSpec
from ser_jax.data.host_transforms import CentreCrop, RandomCrops
from ser_jax.data.prepare import write
from ser_jax.data.sources import UnreadableRecordError

CROPS = RandomCrops((CropSpec("a", 8), CropSpec("b", 4, scale=(0.05, 0.3))))
THREADS = {"num_threads": 2, "prefetch_batches": 2}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return sources.open_source("digits", "test[:20]", folder)  # 2.5 batches of 8


def take(source, num_batches, **options):
    options = {"batch_size": 8, "seed": 0, **THREADS, **options}
    batches = loader.train_loader(source, CROPS, **options)
    taken = [next(batches) for _ in range(num_batches)]
    batches.close()
    return taken


def assert_same(got, expected):
    jax.tree.map(np.testing.assert_array_equal, got, expected)


def test_batches_hold_the_epoch_once_then_anew(source):
    """Red if an epoch's tail is dropped, or every epoch has one order."""
    batches = take(source, 5)
    assert batches[0]["crops"]["a"].shape == (8, 8, 8, 3)
    assert batches[0]["crop_params"]["b"].shape == (8, 7)
    assert batches[0]["index"].dtype == np.int64
    order = np.concatenate([batch["index"] for batch in batches])
    first, second = order[:20], order[20:]
    np.testing.assert_array_equal(np.sort(first), np.arange(20))
    np.testing.assert_array_equal(np.sort(second), np.arange(20))
    assert (first != second).any() and (first != np.arange(20)).any()


@pytest.mark.parametrize("step", [1, 2, 4])
def test_start_step_is_the_uninterrupted_run(source, step):
    """Pixel for pixel, into the third epoch; red if the rng counts from the start."""
    assert_same(take(source, 2, start_step=step), take(source, 6)[step : step + 2])


def test_processes_share_the_one_process_batch(source):
    """Four rows each, in order; red if the rng depends on the process."""
    whole = take(source, 4)
    for index in range(2):
        part = take(source, 4, process_index=index, process_count=2)
        rows = slice(4 * index, 4 * index + 4)
        assert_same(part, jax.tree.map(lambda x, rows=rows: x[rows], whole))


@pytest.mark.slow
def test_workers_change_nothing(source):
    """Nor need they a program that has parsed flags, though grain reads some."""
    flags.FLAGS.unparse_flags()
    try:
        assert_same(take(source, 4, num_workers=2), take(source, 4))
    finally:
        flags.FLAGS.mark_as_parsed()


def test_seeds_differ(source):
    a, b = take(source, 1), take(source, 1, seed=1)
    assert (a[0]["index"] != b[0]["index"]).any()
    assert (a[0]["crop_params"]["a"] != b[0]["crop_params"]["a"]).any()


def test_source_smaller_than_a_batch_repeats(source):
    """50 rows of 20 records: each twice, ten of them a third time."""
    (batch,) = take(source, 1, batch_size=50)
    assert sorted(np.bincount(batch["index"])) == [2] * 10 + [3] * 10


def evaluate(source, **options):
    options = {"batch_size": 8, **THREADS, **options}
    return list(loader.eval_batches(source, CentreCrop(8, 8), **options))


def test_eval_is_one_ordered_pass_padded_from_the_start(source):
    """Red if the tail is dropped, or the filling counts as valid."""
    batches = evaluate(source)
    np.testing.assert_array_equal(
        [batch["index"] for batch in batches],
        [range(8), range(8, 16), [16, 17, 18, 19, 0, 1, 2, 3]],
    )
    valid = np.stack([batch["valid"] for batch in batches])
    assert valid.dtype == bool and valid.sum() == 20 and valid.ravel()[:20].all()
    labels = [source[i]["label"] for i in range(8)]
    np.testing.assert_array_equal(batches[0]["label"], labels)
    assert batches[2]["image"].shape == (8, 8, 8, 3)


def test_eval_processes_share_the_one_process_batch(source):
    """Also a process that has no record of its own sees every batch."""
    for batch_size in (9, 63):
        whole = evaluate(source, batch_size=batch_size)
        for index in range(3):
            part = evaluate(
                source, batch_size=batch_size, process_index=index, process_count=3
            )
            assert_same(part, jax.tree.map(lambda x, i=index: x[i::3], whole))


def test_full_last_batch_is_not_followed_by_an_empty_one(source):
    batches = evaluate(source, batch_size=10)
    assert len(batches) == 2 and all(batch["valid"].all() for batch in batches)


def test_unreadable_record_is_named(tmp_path):
    """Red if the transform's own error comes through without the record."""
    png = write.encode_png(np.zeros((9, 9, 3), np.uint8))
    examples = [(str(i), {"image": png[: 40 if i == 2 else None]}) for i in range(4)]
    with write.staged(tmp_path / "hurt" / "1.0.0") as directory:
        write.write_splits(
            directory,
            "hurt",
            "1.0.0",
            tfds.features.FeaturesDict({"image": tfds.features.Image()}),
            {"train": write.Split(examples)},
        )
    source = sources.open_source("hurt", "train", tmp_path)
    (bad,) = (i for i in range(4) if len(source[i]["image"]) == 40)
    message = f"record {bad} of 'hurt', split 'train'.*prepare it again"
    with pytest.raises(UnreadableRecordError, match=message):
        take(source, 1)
    with pytest.raises(UnreadableRecordError, match=message):
        evaluate(source)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 9, "process_count": 2}, "multiple of the 2 process.*got 9"),
        ({"batch_size": 0}, "got 0"),
        ({"process_index": 2, "process_count": 2}, r"\[0, 2\), got 2"),
    ],
)
def test_impossible_shares_are_refused(source, options, message):
    with pytest.raises(ValueError, match=message):
        take(source, 1, **options)
    with pytest.raises(ValueError, match=message):
        evaluate(source, **options)
