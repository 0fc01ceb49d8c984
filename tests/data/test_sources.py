import json
import pickle
import pwd
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds
from sklearn.datasets import load_digits

from ser_jax.data import sources
from ser_jax.data.decode import decode_image
from ser_jax.data.prepare import write


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    sources.open_source("digits", "train", folder)
    return folder


def write_small(data_dir, name, fields, version="1.0.0", features=None):
    """Writes a data set with a split `train` of one example per dict in `fields`."""
    features = features or {"image": tfds.features.Image()}
    png = write.encode_png(np.zeros((2, 2, 3), np.uint8))
    examples = [(str(i), {"image": png} | f) for i, f in enumerate(fields)]
    with write.staged(data_dir / name / version) as directory:
        write.write_splits(
            directory,
            name,
            version,
            tfds.features.FeaturesDict(features),
            {"train": write.Split(examples)},
        )


def test_digits_are_the_whole_of_scikit_learns(data_dir):
    """Red if an image is lost, doubled, mislabelled or in both splits."""
    records = [
        record
        for split, size in [("train", 1500), ("test", 297)]
        for record in _read_all(data_dir, split, size)
    ]
    digits = load_digits()
    expected = np.round(digits.images * 255 / 16).astype(np.uint8)
    pairs = sorted((image.tobytes(), label) for image, label in records)
    assert pairs == sorted(
        (image.tobytes(), label)
        for image, label in zip(expected, digits.target, strict=True)
    )


def _read_all(data_dir, split, size):
    source = sources.open_source("digits", split, data_dir)
    assert len(source) == size
    for index in range(size):
        record = source[index]
        assert record.keys() == {"image", "label", "index"}
        assert record["index"] == index
        image = decode_image(record["image"])
        assert image.shape == (8, 8, 3)
        yield image[..., 0], record["label"]


def test_index_counts_within_a_sub_split(data_dir):
    whole = sources.open_source("digits", "train", data_dir)
    part = sources.open_source("digits", "train[1000:1010]", data_dir)
    assert part[3] == whole[1003] | {"index": 3}
    both = sources.open_source("digits", "train+test", data_dir)
    assert len(both) == 1797


def test_fingerprint_is_the_datas_not_the_places(data_dir, tmp_path):
    source = sources.open_source("digits", "train", data_dir)
    elsewhere = sources.open_source("digits", "train", tmp_path)
    assert source.fingerprint == elsewhere.fingerprint
    assert json.loads(json.dumps(source.fingerprint)) == source.fingerprint
    assert (
        source.fingerprint.items()
        >= {
            "name": "digits",
            "version": "1.0.0",
            "split": "train",
            "num_examples": 1500,
        }.items()
    )
    shutil.rmtree(tmp_path / "digits")
    write_small(tmp_path, "digits", [{}] * 3)
    other = sources.open_source("digits", "train", tmp_path)
    assert other.fingerprint["shards"] != source.fingerprint["shards"]


def test_source_survives_pickling(data_dir):
    source = sources.open_source("digits", "test", data_dir)
    copy = pickle.loads(pickle.dumps(source))
    assert (copy.name, copy.split, copy.num_classes) == ("digits", "test", 10)
    assert copy.fingerprint == source.fingerprint and copy[5] == source[5]


def test_unlabelled_set_has_label_minus_one(tmp_path):
    write_small(tmp_path, "plain", [{}, {}])
    source = sources.open_source("plain", "train", tmp_path)
    assert source.num_classes is None and source[1]["label"] == -1


def test_newest_version_unless_one_is_named(tmp_path):
    """Red if versions compare as text: 9 would beat 10."""
    write_small(tmp_path, "plain", [{}], version="9.0.0")
    write_small(tmp_path, "plain", [{}, {}], version="10.0.0")
    assert len(sources.open_source("plain", "train", tmp_path)) == 2
    assert len(sources.open_source("plain:9.0.0", "train", tmp_path)) == 1


def test_two_writers_at_once_leave_one_good_set(tmp_path):
    """Both see none, both write; red if the second to finish fails or mixes in."""
    final_dir = tmp_path / "plain" / "1.0.0"
    with write.staged(final_dir) as loser:
        (loser / "dataset_info.json").write_text("loser")
        with write.staged(final_dir) as winner:
            (winner / "dataset_info.json").write_text("winner")
    assert [p.name for p in tmp_path.iterdir()] == ["plain"]
    assert (final_dir / "dataset_info.json").read_text() == "winner"


@pytest.mark.parametrize(("num_bytes", "num_shards"), [(0, 1), (700, 8)])
def test_shards_are_shuffled_and_complete(tmp_path, monkeypatch, num_bytes, num_shards):
    """Red if a bucket is lost, or a shard keeps the order of writing: by class here."""
    monkeypatch.setattr(write, "SHARD_BYTES", 100)
    features = {
        "image": tfds.features.Image(),
        "label": tfds.features.ClassLabel(num_classes=50),
    }
    examples = [(str(i), {"image": b"x", "label": i}) for i in range(50)]
    with write.staged(tmp_path / "many" / "1.0.0") as directory:
        write.write_splits(
            directory,
            "many",
            "1.0.0",
            tfds.features.FeaturesDict(features),
            {"train": write.Split(examples, num_bytes)},
        )
        assert len(list(directory.glob(f"*-of-{num_shards:05d}"))) == num_shards
    source = sources.open_source("many", "train", tmp_path)
    labels = np.array([source[i]["label"] for i in range(50)])
    np.testing.assert_array_equal(np.sort(labels), np.arange(50))
    assert 15 < labels[:20].mean() < 35 and (np.diff(labels) > 0).mean() < 0.7


@pytest.mark.parametrize(
    ("name", "split", "error", "message"),
    [
        ("photos", "train", FileNotFoundError, "digits:1.0.0.*--name=photos"),
        ("cifar10", "train", FileNotFoundError, "--cifar_archive=cifar-10"),
        ("digits:2.0.0", "train", FileNotFoundError, "digits:1.0.0"),
        ("digits", "val", ValueError, r"train \(1500\), test \(297\)"),
        ("digits", "train[:10", ValueError, r"train \(1500\)"),
        ("digits", "train[:0]", ValueError, "empty"),
    ],
)
def test_errors_say_what_there_is(data_dir, name, split, error, message):
    with pytest.raises(error, match=message):
        sources.open_source(name, split, data_dir)


def test_set_without_images_or_random_access_is_refused(tmp_path):
    text = {"image": tfds.features.Image(), "text": tfds.features.Text()}
    write_small(tmp_path, "plain", [{"text": "a"}], features=text)
    directory = tmp_path / "plain" / "1.0.0"
    info = directory / "dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
    with pytest.raises(ValueError, match="tfrecord.*array_record"):
        sources.open_source("plain", "train", tmp_path)
    path = directory / "features.json"
    spec = json.loads(path.read_text())
    spec["featuresDict"]["features"].pop("image")
    path.write_text(json.dumps(spec))
    with pytest.raises(ValueError, match="no feature 'image'; it has text"):
        sources.open_source("plain", "train", tmp_path)


def test_data_of_a_user_without_a_name_can_be_read(tmp_path, monkeypatch):
    """As in containers; red if a file's owner is asked for."""

    def no_name(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", no_name)
    assert len(sources.open_source("digits", "test[:8]", tmp_path)) == 8
