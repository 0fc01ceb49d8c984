"""Recorded configs that lack settings; what pictures are normalised by."""

import copy

import pytest
from helpers.support import tiny_config

from ser_jax.config import recorded
from ser_jax.config.defaults import base_config
from ser_jax.config.differences import differences, flatten
from ser_jax.config.normalization import IMAGENET
from ser_jax.config.recorded import complete, unknown_settings
from ser_jax.train.experiment import build
from ser_jax.views.recipe import recipe

CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261))
CIFAR100 = ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))
GRAY = ((0.305,) * 3, (0.376,) * 3)


def without(config, *paths):
    """The config as plain dicts, less some settings."""
    plain = copy.deepcopy(config.to_dict())
    for path in paths:
        *parts, name = path.split(".")
        place = plain
        for part in parts:
            place = place[part]
        del place[name]
    return plain


def test_a_whole_config_stays_as_it_is():
    config = base_config("dino", "ser")
    assert complete(config.to_dict()) == config.to_dict()
    assert unknown_settings(complete(config.to_dict())) == []


def test_what_is_lacking_is_what_the_version_without_it_did():
    """A setting, a part of the config, settings of a method."""
    config = base_config("moco_v3", "ser")
    config.regularizer.temperature = 0.3
    lacking = without(
        config, "optimizer.momentum", "equiv_share", "regularizer.negatives"
    )
    whole = complete(lacking)
    assert whole == config.to_dict()
    assert "equiv_share" not in lacking  # a copy


@pytest.mark.parametrize("name, expected", [("moco_v3", IMAGENET), ("digits", GRAY)])
def test_normalization_was_the_recipe_s(name, expected):
    """Whatever the data: CIFAR was normalised by ImageNet's."""
    config = base_config()
    config.dataset.name = "cifar10"
    config.augment.recipe = name
    old = without(config, "dataset.mean", "dataset.std")
    experiment = build(old, 1000)
    assert (experiment.mean, experiment.std) == expected


def test_every_line_of_the_table_is_a_setting_of_today():
    """Of some method, at least: red if a setting is renamed and its line is not."""
    known = set()
    for objective in ("moco_v3", "dino", "barlow_twins", "simclr", "byol"):
        for regularizer in ("ser", "equimod", "augself", "essl", "stl"):
            known |= flatten(base_config(objective, regularizer).to_dict()).keys()
    assert recorded._BEFORE.keys() <= known


def test_what_is_not_known_is_kept_and_named():
    record = base_config().to_dict() | {"novel": {"part": 1}}
    record["optimizer"]["other"] = 2
    assert unknown_settings(complete(record)) == ["novel.part", "optimizer.other"]
    with pytest.raises(ValueError, match="byol2"):
        complete(record | {"objective": {"name": "byol2"}})


@pytest.mark.parametrize(
    "dataset, expected",
    [
        ("cifar10", CIFAR10),
        ("cifar100", CIFAR100),
        ("digits", GRAY),
        ("imagenet2012", IMAGENET),
        ("my_images", IMAGENET),
    ],
)
def test_pictures_are_normalised_by_their_data_set_s_own(dataset, expected):
    """In every view and in evaluation; and it is in the record, in numbers."""
    experiment = build(tiny_config(**{"dataset.name": dataset}), 64)
    assert (experiment.mean, experiment.std) == expected
    for view in experiment.learner.make_views.recipes:
        assert (view.mean, view.std) == expected
    recorded_set = experiment.config["dataset"]
    assert (recorded_set["mean"], recorded_set["std"]) == expected
    again = build(experiment.config, 64)
    assert not differences(experiment.config, again.config)


def test_a_config_may_say_what_pictures_are_normalised_by():
    config = tiny_config(**{"dataset.mean": (0.5, 0.4, 0.3), "dataset.name": "cifar10"})
    experiment = build(config, 64)
    assert experiment.mean == (0.5, 0.4, 0.3) and experiment.std == CIFAR10[1]
    assert config.dataset.std == ()  # the caller's is left alone
    config.dataset.std = (0.5, 0.0, 0.5)
    with pytest.raises(ValueError, match="std > 0"):
        build(config, 64)


def test_recipes_are_of_imagenet_until_the_data_set_is_known():
    assert (recipe("digits", "plain", 24).mean, recipe("ser", "local", 96).std) == (
        IMAGENET[0],
        IMAGENET[1],
    )
