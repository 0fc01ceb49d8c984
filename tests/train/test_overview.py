"""What a person reads first: it says what the config and the data set are."""

import jax
import pytest
from helpers.support import tiny_experiment

from ser_jax.train.overview import overview, parameter_table
from ser_jax.train.sharding import make_mesh

IMAGES = range(1500)  # only its length is asked for


@pytest.fixture(scope="module")
def lines():
    experiment = tiny_experiment(**{"max_steps": 3, "objective.hidden_dim": 1024})
    shapes = jax.eval_shape(experiment.init_state, experiment.init_rng).variables
    text = overview(experiment, IMAGES, make_mesh(), shapes, "/runs/a")
    first, *rest = text.splitlines()
    return first, dict(line.split(maxsplit=1) for line in rest), shapes


@pytest.mark.slow
def test_the_first_lines_say_what_is_trained_on_what(lines):
    """Red if a setting is another's, or the run's own end is not told."""
    first, rows, _ = lines
    assert first == "Training moco_v3 with ser"
    assert rows["encoder"] == "ViT Ti/4" and rows["workdir"] == "/runs/a"
    assert rows["images"] == "1,500 of digits, 16 px"
    assert rows["devices"].startswith("8 x ")
    # 64 images, 16 a step, four epochs; 1.5e-4 a 256 images
    assert rows["schedule"] == (
        "4 epochs, 16 steps of 16 images, learning rate up to 9.37e-06 in 4 steps"
    )
    assert rows["max_steps"] == "stops at step 3"
    assert rows["b2"] == "8 of 16 images"


def test_parameters_are_in_one_line_and_in_a_table(lines):
    _, rows, shapes = lines
    parts = [part.split() for part in rows["parameters"].split(", ")]
    assert [name for _, _, name in parts] == [
        *("encoder", "objective", "regularizer", "target")
    ]
    total = sum(leaf.size for leaf in jax.tree.leaves(shapes.params))
    trained = sum(float(number) for number, _, name in parts if name != "target")
    assert trained == pytest.approx(total / 1e6, abs=0.02)
    assert f"Total: {total:,}" in parameter_table(shapes)


def test_without_regularizer_and_limit_there_is_no_word_of_them():
    experiment = tiny_experiment("none")
    shapes = jax.eval_shape(experiment.init_state, experiment.init_rng).variables
    text = overview(experiment, IMAGES, make_mesh(), shapes, "/runs/a")
    assert text.startswith("Training moco_v3\n")
    assert not any(word in text for word in ("regularizer", "max_steps", "b2"))


def test_it_says_where_b2_has_less_than_one_image_a_device(lines):
    _, _, shapes = lines
    experiment = tiny_experiment(batch_size=8)
    text = overview(experiment, IMAGES, make_mesh(), shapes, "/runs/a")
    assert "b2          4 of 8 images, less than one a device" in text
