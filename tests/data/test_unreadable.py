"""Records that cannot be read: named, replaced always by the same, counted."""

import logging
import pathlib

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds

from ser_jax.data import loader, sources
from ser_jax.data.crops import CropSpec
from ser_jax.data.host_transforms import CentreCrop, RandomCrops
from ser_jax.data.prepare import write
from ser_jax.data.sources import UnreadableRecordError
from ser_jax.data.unreadable import Unreadable, stand_ins

CROPS = RandomCrops((CropSpec("a", 8),))
RNG = np.random.default_rng(0)
NUM = 40


def write_set(folder, labels=None, images=None):
    """A data set `hurt` of 40 pictures of noise."""
    labels = labels or {}
    images = images or {}
    examples = [
        (
            str(i),
            {
                "image": images.get(i)
                or write.encode_png(RNG.integers(0, 256, (9, 9, 3), np.uint8)),
                "label": labels.get(i, i % 10),
            },
        )
        for i in range(NUM)
    ]
    features = {
        "image": tfds.features.Image(),
        "label": tfds.features.ClassLabel(num_classes=10),
    }
    with write.staged(folder / "hurt" / "1.0.0") as directory:
        write.write_splits(
            directory,
            "hurt",
            "1.0.0",
            tfds.features.FeaturesDict(features),
            {"train": write.Split(examples)},
        )
    return sources.open_source("hurt", "train", folder)


def flip(source, index):
    """Damages one record on disk."""
    path = pathlib.Path(source.shards[0].path)
    data, image = bytearray(path.read_bytes()), source[index]["image"]
    data[bytes(data).index(image) + len(image) // 2] ^= 8
    path.write_bytes(data)


@pytest.fixture
def hurt(tmp_path):
    """A source whose records 3 and 17 are damaged on disk."""
    source = write_set(tmp_path)
    for index in (3, 17):
        flip(source, index)
    return sources.open_source("hurt", "train", tmp_path)


def batches(source, count=10, **options):
    options = {"num_threads": 2, "prefetch_batches": 2} | options
    stream = loader.train_loader(
        source, CROPS, batch_size=8, seed=0, replace_unreadable=True, **options
    )
    taken = [next(stream) for _ in range(count)]
    stream.close()
    return taken


def test_another_always_the_same_stands_in(hurt):
    """Red if it depends on threads, processes or where the stream begins."""
    whole = batches(hurt)
    asked = np.concatenate([batch["asked"] for batch in whole])
    found = np.concatenate([batch["index"] for batch in whole])
    np.testing.assert_array_equal(np.sort(asked[:NUM]), np.arange(NUM))
    assert set(asked[asked != found]) == {3, 17}
    assert len(set(found[asked == 3])) == 1 and not {3, 17} & set(found)
    same = jax.tree.map
    same(np.testing.assert_array_equal, batches(hurt, num_threads=1), whole)
    same(np.testing.assert_array_equal, batches(hurt, 5, start_step=5), whole[5:])
    for process in range(2):
        part = batches(hurt, process_index=process, process_count=2)
        rows = slice(4 * process, 4 * process + 4)
        mine = jax.tree.map(lambda x, rows=rows: x[rows], whole)
        same(np.testing.assert_array_equal, part, mine)


def test_they_are_counted_once_and_told(hurt, caplog):
    caplog.set_level(logging.WARNING)
    unreadable = Unreadable(hurt, 2 / NUM)
    for batch in batches(hurt, 20):
        unreadable.note(batch)
    assert unreadable.indices == {3, 17}
    assert len(caplog.records) == 2
    assert "hash mismatch" in caplog.text and hurt.shards[0].path in caplog.text


@pytest.mark.parametrize("share", [0.0, 1.9 / NUM])
def test_too_many_end_the_run(hurt, share):
    unreadable = Unreadable(hurt, share)
    where = r"record (3|17) of 'hurt', split 'train' \(record \1 of .*00001\), cannot"
    with pytest.raises(UnreadableRecordError, match=where) as error:
        for batch in batches(hurt):
            unreadable.note(batch)
    assert "loader.max_bad_frac, now " in str(error.value)
    assert "\n" not in str(error.value)


def test_those_that_stood_in_in_vain_count_too(tmp_path):
    source = write_set(tmp_path)
    chain = stand_ins(5, NUM)
    first, second, third = (next(chain) for _ in range(3))
    assert (first, len({first, second, third})) == (5, 3)
    flip(source, first), flip(source, second)
    source = sources.open_source("hurt", "train", tmp_path)
    unreadable = Unreadable(source, 1.0)
    unreadable.note({"asked": np.array([5, 6]), "index": np.array([third, 6])})
    assert unreadable.indices == {first, second}


def test_evaluation_does_without_none(hurt):
    options = {"batch_size": 8, "num_threads": 1, "prefetch_batches": 1}
    with pytest.raises(UnreadableRecordError, match="record 3 of 'hurt'") as error:
        list(loader.eval_batches(hurt, CentreCrop(8, 8), **options))
    assert "\n" not in str(error.value)


def test_a_part_of_a_split_names_the_place_in_the_file(hurt, tmp_path):
    part = sources.open_source("hurt", "train[5:]", tmp_path).part(10, 20)
    where = r"record 2 of 'hurt', split 'train\[5:\]\[10:20\]' \(record 17 of "
    with pytest.raises(UnreadableRecordError, match=where):
        part[2]


def test_labels_and_pictures_that_cannot_be(tmp_path, monkeypatch):
    source = write_set(tmp_path, images={7: b"\x89PNG no picture"})
    records = [dict(source.records[i]) for i in range(NUM)]
    (bad,) = (i for i in range(NUM) if len(records[i]["image"]) < 20)
    records[0]["label"], records[1]["label"] = 10, -2
    records[2].pop("label")
    source = sources.Source("hurt", "train", 10, {}, records)
    for index, why in [(0, "its label is 10"), (1, "is -2"), (2, "'label'")]:
        with pytest.raises(UnreadableRecordError, match=f"record {index} .*{why}"):
            source[index]
    asked = {
        int(index)
        for batch in batches(source)
        for index in batch["asked"][batch["asked"] != batch["index"]]
    }
    assert asked == {0, 1, 2, bad}


@pytest.mark.parametrize("data", [None, b"", b"no shard", "half"])
def test_files_that_are_lost_or_cut(tmp_path, data):
    """Red if one that is cut passes as long as nobody reads past its end."""
    path = pathlib.Path(write_set(tmp_path).shards[0].path)
    if data is None:
        path.unlink()
    else:
        half = path.read_bytes()[: path.stat().st_size // 2]
        path.write_bytes(half if data == "half" else data)
    if data:
        source = sources.open_source("hurt", "train", tmp_path)
        with pytest.raises(UnreadableRecordError, match="record 0 of .*array_record"):
            source[0]
        with pytest.raises(UnreadableRecordError, match="record .*array_record"):
            batches(source, 1)
    else:
        with pytest.raises(FileNotFoundError, match="array_record.* is not there or e"):
            sources.open_source("hurt", "train", tmp_path)
