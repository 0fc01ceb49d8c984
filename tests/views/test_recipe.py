"""The named recipes."""

import dataclasses
import re

import numpy as np
import pytest

from ser_jax.views import recipe as recipes


@pytest.mark.parity
def test_ser_recipe_is_the_recorded_one(golden):
    settings = golden("colour_aug").settings
    ranges = settings["ranges"]
    for view, key in (("global/0", "pipeline1"), ("global/1", "pipeline2")):
        recipe = recipes.recipe("ser", view, 224)
        for name in ("brightness", "contrast", "saturation"):
            half = getattr(recipe, name)
            np.testing.assert_allclose([1 - half, 1 + half], ranges[name])
        np.testing.assert_allclose([-recipe.hue, recipe.hue], ranges["hue"])
        assert recipe.blur_sigma == tuple(ranges["blur_sigma"])
        assert recipe.blur_taps == ranges["blur_kernel"]
        assert recipe.solarize_threshold == tuple(ranges["solarise_threshold"])
        probs = dict(re.findall(r"(\w+)\(p ([\d.]+)\)", settings[key]))
        got = {
            "jitter": recipe.jitter_prob,
            "grayscale": recipe.gray_prob,
            "blur": recipe.blur_prob,
            "solarise": recipe.solarize_prob,
        }
        assert got == {k: float(probs.get(k, 0.0)) for k in got}


def test_views_of_a_recipe_differ_as_published():
    first, second, local = (
        recipes.recipe("dino", view, 96) for view in ("global/0", "global/1", "local")
    )
    assert (first.blur_prob, second.blur_prob, local.blur_prob) == (1.0, 0.1, 0.5)
    solarize = [r.solarize_prob for r in (first, second, local)]
    assert solarize == [0.0, 0.2, 0.0]
    assert recipes.crop_scale("dino", small=False) == (0.4, 1.0)
    assert recipes.crop_scale("dino", small=True) == (0.05, 0.4)
    unsolarized = recipes.recipe("dino", "unsolarized", 96)
    assert unsolarized == dataclasses.replace(second, solarize_prob=0.0)
    plain = recipes.recipe("digits", "plain", 96)
    assert plain == recipes.Recipe(mean=plain.mean, std=plain.std)
    simclr = recipes.recipe("simclr", "global/1", 224)
    assert (simclr.saturation, simclr.hue, simclr.blur_prob) == (0.8, 0.2, 0.5)
    assert simclr.solarize_prob == 0.0
    assert recipes.recipe("augself", "global/0", 224).saturation == 0.4
    assert recipes.crop_scale("augself", small=False) == (0.2, 1.0)


def test_released_recipes_of_ser_and_stl():
    """Red if the local views of SER's release are gray at times, as ours are."""
    grays = [
        recipes.recipe("ser_multicrop", view, 96).gray_prob
        for view in ("global/0", "global/1", "unsolarized", "local")
    ]
    assert grays == [0.2, 0.2, 0.2, 0.0]
    first, second = (
        recipes.recipe("stl", view, 224) for view in ("global/0", "global/1")
    )
    assert first == second and first.solarize_prob == 0
    assert (first.blur_prob, first.blur_taps, first.gray_prob) == (0.5, 9, 0.2)
    assert (first.brightness, first.saturation, first.hue) == (0.4, 0.2, 0.1)
    assert recipes.crop_scale("stl", small=False) == (0.2, 1.0)


@pytest.mark.parametrize(
    ("size_px", "taps"), [(224, 23), (96, 9), (32, 3), (16, 3), (288, 29)]
)
def test_blur_width_follows_the_image(size_px, taps):
    assert recipes.recipe("byol", "global/0", size_px).blur_taps == taps
    assert recipes.recipe("ser", "global/0", size_px).blur_taps == 9


def test_digits_are_treated_mildly():
    digits = recipes.recipe("digits", "global/1", 32)
    assert (digits.brightness, digits.contrast, digits.blur_taps) == (0.4, 0.4, 3)
    pointless_on_gray = digits.saturation, digits.hue, digits.gray_prob
    assert pointless_on_gray == (0.0, 0.0, 0.0) and digits.solarize_prob == 0.0


def test_unknown_names_are_explained():
    with pytest.raises(ValueError, match="Did you mean 'moco_v3'.*barlow_twins"):
        recipes.recipe("mocov3", "global/0", 224)
    with pytest.raises(ValueError, match="The recipes are augself"):
        recipes.crop_scale("xyz", small=False)
    for view in ("global/2", "local/0", "rot/0", ""):
        with pytest.raises(ValueError, match="photometry is one of 'global/0'"):
            recipes.recipe("dino", view, 224)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("jitter_prob", 1.2, r"jitter_prob must be in \[0, 1\]"),
        ("gray_prob", -0.1, "gray_prob must be"),
        ("blur_prob", 2.0, "blur_prob must be"),
        ("solarize_prob", 2.0, "solarize_prob must be"),
        ("contrast", 1.5, r"contrast must be in \[0, 1\]"),
        ("hue", 0.6, r"hue must be in \[0, 0.5\]"),
        ("blur_sigma", (0.0, 2.0), "0 < low <= high"),
        ("blur_taps", 8, "must be odd"),
        ("solarize_threshold", (0.0, 128.0), "Divide an 8-bit threshold by 256"),
        ("colour", "pillow", "'torchvision' or 'kornia', got 'pillow'"),
        ("std", (0.2, 0.0, 0.2), "std > 0"),
    ],
)
def test_bad_recipes_are_explained(field, value, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(recipes.Recipe(), **{field: value})
