"""Grids: how they are written, the cells they make, what is refused."""

import pathlib

import pytest

from ser_jax.sweep.grid import expand, parse_grid, with_preset_name

DIGITS = str(pathlib.Path(__file__).parents[2] / "configs" / "digits.py")


def test_grid():
    """Red if a comma in brackets splits a value, or an axis loses its order."""
    text = "regularizer.weight=0.0, 0.5 ;augment.crop_scale=(0.2,1.0),(0.08,1.0);"
    assert parse_grid(text) == {
        "regularizer.weight": ("0.0", "0.5"),
        "augment.crop_scale": ("(0.2,1.0)", "(0.08,1.0)"),
    }
    assert parse_grid("") == {}


@pytest.mark.parametrize(
    "text, message",
    [
        ("regularizer.weight", "expected KEY=VALUE,VALUE"),
        ("regularizer.weight=", "expected KEY=VALUE,VALUE"),
        ("regularizer.weight=0,,1", "expected KEY=VALUE,VALUE"),
        ("regularizer.weight=0,0", "twice"),
        ("batch_size=8;batch_size=16", "twice"),
        ("seed=0,1", "--seeds"),
    ],
)
def test_grids_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_grid(text)


def test_cells_are_the_product_of_axes_and_seeds(tmp_path):
    """Red if a setting, a seed or an override does not reach its run's config."""
    grid = parse_grid(
        "regularizer.weight=0.0,0.5;augment.crop_scale=(0.2,1.0),(0.5,1.0)"
    )
    overrides = [f"--config.dataset.data_dir={tmp_path}", "--config.max_steps=6"]
    file = f"{DIGITS}:moco_v3/ser"
    runs = expand(file, grid, (0, 7), tmp_path, overrides)
    assert len(runs) == 8
    found = [(r.config["regularizer"]["weight"], r.config["seed"]) for r in runs]
    assert found == [(w, seed) for w in (0.0, 0.5) for _ in range(2) for seed in (0, 7)]
    last = runs[-1]
    assert last.cell == "regularizer.weight=0.5,augment.crop_scale=(0.5,1.0)"
    assert last.workdir == tmp_path / last.cell / "seed7"
    assert last.arguments == (
        f"--config={file}",
        *overrides,
        "--config.regularizer.weight=0.5",
        "--config.augment.crop_scale=(0.5,1.0)",
        "--config.seed=7",
    )
    assert last.config["augment"]["crop_scale"] == (0.5, 1.0)
    assert last.config["max_steps"] == last.stop_step == 6


@pytest.mark.parametrize(
    "name, expected",
    [
        ("c.py", "c.py:ser"),
        ("c.py:equimod", "c.py:ser"),
        ("c.py:dino", "c.py:dino/ser"),
        ("c.py:dino/none", "c.py:dino/ser"),
    ],
)
def test_a_preset_takes_the_place_of_the_preset(name, expected):
    assert with_preset_name(name, "ser") == expected


def test_presets_are_an_axis(tmp_path):
    """Red if the preset goes in as a setting."""
    runs = expand(
        f"{DIGITS}:simclr/none",
        parse_grid("preset=none,equimod"),
        [0],
        tmp_path,
        [f"--config.dataset.data_dir={tmp_path}"],
    )
    assert [run.config["regularizer"]["name"] for run in runs] == ["none", "equimod"]
    assert {run.config["objective"]["name"] for run in runs} == {"simclr"}
    assert runs[1].workdir == tmp_path / "preset=equimod" / "seed0"


def test_a_preset_refused_says_which_there_are(tmp_path):
    with pytest.raises(ValueError) as error:
        expand(f"{DIGITS}:dino", parse_grid("preset=sre"), [0], tmp_path)
    assert str(error.value).startswith(
        "cell preset=sre: no preset is called 'sre'. Did you mean 'ser'?"
    )
