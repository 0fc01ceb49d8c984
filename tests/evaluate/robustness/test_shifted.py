"""Accuracy among the classes that occur, matched by name."""

import dataclasses

import numpy as np
import pytest
import tensorflow_datasets as tfds
from helpers.robustness_pictures import make_source, plain

from ser_jax.data import sources
from ser_jax.data.host_transforms import CentreCrop
from ser_jax.data.prepare import write
from ser_jax.evaluate.robustness.shifted import evaluate_shifted

LETTERS = tuple("abcdefgh")
TRAIN = make_source([plain(0)], [0], 8, LETTERS)


def evaluate(logits, labels, *, num_classes=8, class_names=LETTERS, train=TRAIN):
    source = make_source([plain(0)], [0], num_classes, class_names)

    def classify(got_source, transform):
        assert got_source is source
        return np.array(logits, np.float32), np.array(labels)

    return evaluate_shifted(classify, source, CentreCrop(32, 32), train=train)


def test_classes_that_do_not_occur_are_no_choice():
    # Class 7 is always the first, but does not occur; 5 is right once, 2 never.
    logits = [[0, 0, 1, 0, 0, 2, 0, 9], [0, 0, 1, 0, 0, 2, 0, 9]]
    result = evaluate(logits, [5, 2])
    assert result == {"top1": 0.5, "top5": 1.0, "num_images": 2, "num_classes": 2}


def test_top5():
    logits = np.tile(np.arange(8, dtype=np.float32), (8, 1))
    result = evaluate(logits, np.arange(8))
    assert result["top1"] == 1 / 8 and result["top5"] == 5 / 8


def test_ties_count_against():
    result = evaluate(np.zeros((8, 8)), np.arange(8))
    assert result["top1"] == result["top5"] == 0


def test_classes_are_matched_by_name():
    """A set of two classes, in another order than the training set's."""
    logits = [[0, 9, 0, 0, 0, 0, 5, 0], [0, 0, 9, 0, 0, 0, 5, 4]]
    result = evaluate(logits, [1, 0], num_classes=2, class_names=("g", "b"))
    assert result == {"top1": 1.0, "top5": 1.0, "num_images": 2, "num_classes": 2}


def test_classes_without_names_are_matched_by_label():
    logits = np.eye(8)[[3, 4]]
    assert evaluate(logits, [3, 4], class_names=None)["top1"] == 1
    unnamed = dataclasses.replace(TRAIN, class_names=None)
    assert evaluate(logits, [3, 4], train=unnamed)["top1"] == 1


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(num_classes=2, class_names=None), "2 classes.*8.*not both have names"),
        (dict(num_classes=2, class_names=("x", "y")), r"no class of .*\(x, y, ...\)"),
        (dict(num_classes=2, class_names=("a", "y")), "classes that 'coloured' has no"),
        (dict(num_classes=None), "need labels"),
    ],
)
def test_other_classes(settings, message):
    with pytest.raises(ValueError, match=message):
        evaluate(np.eye(8)[[0, 1]], [0, 1], **settings)


@pytest.mark.parametrize(
    "names, expected",
    [(("dog", "cat"), ("dog", "cat")), (None, None), (("1", "0"), ("1", "0"))],
)
def test_sources_know_the_names_of_classes(tmp_path, names, expected):
    label = tfds.features.ClassLabel(names=names, num_classes=None if names else 2)
    features = tfds.features.FeaturesDict(
        {"image": tfds.features.Image(), "label": label}
    )
    example = {"image": write.encode_png(plain(0)), "label": 1}
    with write.staged(tmp_path / "pets" / "1.0.0") as directory:
        splits = {"test": write.Split([("0", example)])}
        write.write_splits(directory, "pets", "1.0.0", features, splits)
    source = sources.open_source("pets", "test", tmp_path)
    assert source.class_names == expected and source.num_classes == 2
