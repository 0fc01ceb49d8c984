"""What is evaluated on: told apart by content, labelled or not split by split."""

import dataclasses
import json
import logging

import pytest
from helpers.support import tiny_config

from ser_jax.data.fingerprint import write_fingerprint
from ser_jax.data.sources import Source, _content
from ser_jax.evaluate import data as data_lib
from ser_jax.evaluate import probe
from ser_jax.evaluate.data import EvalData, has_labels
from ser_jax.evaluate.open import _other_data
from ser_jax.train.experiment import build

SPLITS = ("train", "test")


def source(labels, split="train", num_classes=3):
    records = [{"image": b"", "label": label} for label in labels]
    return Source("mine", split, num_classes, {"name": "mine"}, records)


@pytest.mark.parametrize(
    "labels, num_classes, expected",
    [
        ([0, 1, 2], 3, True),
        ([-1] * 40, 3, False),
        ([-1] * 20 + [0] * 20, 3, True),  # two splits in one
        ([-1], None, False),
    ],
)
def test_a_set_with_classes_may_have_splits_without(labels, num_classes, expected):
    assert has_labels(source(labels, num_classes=num_classes)) == expected


@pytest.mark.parametrize("without", ["train", "test"])
def test_accuracy_needs_labels_in_both_splits(without):
    data = EvalData("mine", "/nowhere", "train", "test")
    parts = {"train": data.__dict__, "held_out": data.__dict__}
    for attribute, split in (("train", "train"), ("held_out", "test")):
        labels = [-1] * 9 if split == without else [0, 1, 2] * 3
        parts[attribute][attribute] = source(labels, split)
    assert f"split '{without}', has no labels" in data.unlabelled()
    assert data.absent() is None


def test_no_probe_without_labels_to_vote_or_to_ask_for(monkeypatch, caplog):
    """Red if a bank of no classes is asked: its vote is about nothing."""
    experiment = build(tiny_config("simclr", "none"), 40)
    monkeypatch.setattr(probe, "open_source", lambda *_: source([0, 1] * 5, "test"))
    caplog.set_level(logging.INFO)
    assert probe.make_probe(experiment, source([-1] * 40), None) is None
    assert "mine, train, has no labels: no k-NN probe" in caplog.text
    monkeypatch.setattr(probe, "open_source", lambda *_: source([-1] * 9, "test"))
    assert probe.make_probe(experiment, source([0, 1] * 20), None) is None


@pytest.mark.parametrize(
    "split, of",
    [
        ("train[:10%]", {"train"}),
        ("train+test", {"train", "test"}),
        ("test-small", {"test-small"}),
        ("all", {"train", "test", "test-small"}),
    ],
)
def test_content_is_that_of_the_splits_asked_for(tmp_path, split, of):
    names = ("train", "test", "test-small")
    splits = [{"name": name} for name in names]
    (tmp_path / "dataset_info.json").write_text(json.dumps({"splits": splits}))
    write_fingerprint(tmp_path, {name: name * 2 for name in names})
    assert _content(tmp_path, split) == {k: f"sha256:{k * 2}" for k in of}


def test_other_data_have_a_folder_of_their_own():
    own = {
        **{"name": "digits", "data_dir": "/a"},
        **{"train_split": "train", "eval_split": "test"},
    }
    assert _other_data(own, own | {"data_dir": "/b"}) == ""  # moved, or told by content
    changes = [
        *({"eval_split": "train[:64]"}, {"eval_split": "train[64:]"}),
        *({"train_split": "test"}, {"name": "digits/big"}),
    ]
    names = [_other_data(own, own | change) for change in changes]
    assert len(set(names)) == 4 and all("/" not in name for name in names)
    assert names[0].startswith("-digits-train-train_64_-")


def test_data_are_told_by_what_is_there(monkeypatch):
    """Not by where: the folder is in no part of it."""

    def opened(name, split, data_dir):
        if split == "absent":
            raise ValueError("no such split")
        return dataclasses.replace(source([0], split), content={split: "sha256:ab"})

    monkeypatch.setattr(data_lib, "open_source", opened)
    train, test = ({"name": "mine", "content": {k: "sha256:ab"}} for k in SPLITS)
    here, there = (EvalData("mine", x, *SPLITS) for x in ("/a", "/b"))
    assert here.about() == there.about() == {"train": train, "eval": test}
    assert EvalData("mine", "/a", "train", "absent").about() == {"train": train}
