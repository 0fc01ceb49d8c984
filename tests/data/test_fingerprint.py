import json
import os

import pytest
import tensorflow_datasets as tfds

from ser_jax.data.fingerprint import fingerprint
from ser_jax.data.prepare import write

FEATURES = tfds.features.FeaturesDict(
    {
        "image": tfds.features.Image(),
        "label": tfds.features.ClassLabel(names=["cat", "dog"]),
    }
)
PICTURES = {"1": (b"one", "cat"), "2": (b"two", "dog"), "3": (b"three", 1)}


def written(data_dir, pictures=PICTURES):
    """Folder of a set with splits `train` (the pictures) and `test` (picture 1)."""
    examples = [
        (key, {"image": data, "label": label})
        for key, (data, label) in pictures.items()
    ]
    with write.staged(data_dir / "pets" / "1.0.0") as directory:
        write.write_splits(
            directory,
            "pets",
            "1.0.0",
            FEATURES,
            {
                "train": write.Split(examples),
                "test": write.Split([e for e in examples if e[0] == "1"]),
            },
        )
    return data_dir / "pets" / "1.0.0"


def test_the_content_is_told_wherever_it_lies(tmp_path):
    """Red if places, times or the order of writing enter, or splits are mixed up."""
    one = fingerprint(written(tmp_path / "a"))
    again = fingerprint(written(tmp_path / "b", dict(reversed(PICTURES.items()))))
    assert one == again and one.keys() == {"train", "test"}
    assert one["train"].startswith("sha256:") and one["train"] != one["test"]


@pytest.mark.parametrize(
    "change",
    [{"2": (b"Two", "dog")}, {"2": (b"two", "cat")}, {"4": (b"four", "dog")}],
    ids=["picture", "label", "one more"],
)
def test_other_content_is_another_fingerprint(tmp_path, change):
    one = fingerprint(written(tmp_path / "a"))
    other = fingerprint(written(tmp_path / "b", PICTURES | change))
    assert one["train"] != other["train"] and one["test"] == other["test"]


@pytest.mark.parametrize("recorded", [None, "{", "{}"])
def test_a_set_of_other_making_goes_by_its_files(tmp_path, recorded):
    directory = written(tmp_path)
    (directory / "fingerprint.json").unlink()
    if recorded is not None:
        (directory / "fingerprint.json").write_text(recorded)
    one = fingerprint(directory)
    assert one == fingerprint(directory) and one["train"].startswith("files:")
    os.utime(directory / "pets-test.array_record-00000-of-00001", (1, 1))
    other = fingerprint(directory)
    assert one["train"] == other["train"] and one["test"] != other["test"]


def test_no_set_has_no_fingerprint(tmp_path):
    assert fingerprint(tmp_path) is None


def test_it_is_a_small_file_beside_the_set(tmp_path):
    directory = written(tmp_path)
    content = json.loads((directory / "fingerprint.json").read_text())
    assert content == fingerprint(directory)
