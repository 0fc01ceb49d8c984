"""A folder of pictures is a data set of its own, made once."""

import os

import numpy as np
import pytest
from PIL import Image

from ser_jax.data.prepare import audit
from ser_jax.evaluate.data import EvalData
from ser_jax.evaluate.folder import prepare_folder


@pytest.fixture
def save(tmp_path):
    """Writes a picture below the folder."""

    def save(name):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), len(name), np.uint8)).save(path)

    return save


def test_a_plain_folder_is_prepared_once_but_for_what_cannot_be_read(
    save, tmp_path, monkeypatch, capsys
):
    for name in ("a.png", "deep/b.png"):
        save(name)
    (tmp_path / "images" / "broken.jpg").write_bytes(b"no picture")
    made = prepare_folder(tmp_path / "images", tmp_path / "data")
    data = EvalData(**made)
    names = {record["file_name"] for record in data.train.records}
    assert names == {b"a.png", b"deep/b.png"} and data.images is data.train
    assert "unreadable: train: broken.jpg" in capsys.readouterr().err
    assert data.unlabelled() is not None

    def decoded(*args):
        raise AssertionError("it is there")

    monkeypatch.setattr(audit, "to_storable", decoded)
    assert prepare_folder(tmp_path / "images", tmp_path / "data") == made
    save("c.png")
    with pytest.raises(ValueError, match="does not hold the pictures that .* made of"):
        prepare_folder(tmp_path / "images", tmp_path / "data")


def test_splits_and_classes_are_those_of_the_folder(save, tmp_path):
    for split in ("val", "train"):
        for kind in ("cat", "dog"):
            save(f"{split}/{kind}/1.png")
    data = EvalData(**prepare_folder(tmp_path / "images", tmp_path / "data"))
    assert (data.train_split, data.eval_split) == ("train", "val")
    assert data.train.class_names == ("cat", "dog") and data.unlabelled() is None


def test_a_folder_without_pictures_is_refused_by_the_flag(tmp_path):
    with pytest.raises(ValueError, match="check --pictures"):
        prepare_folder(tmp_path / "absent", tmp_path / "data")
    os.mkdir(tmp_path / "images")
    with pytest.raises(ValueError, match="no images under"):
        prepare_folder(tmp_path / "images", tmp_path / "data")
    assert not (tmp_path / "data").exists()
