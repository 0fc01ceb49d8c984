"""FLOPs by part: they add up, and agree with counts by hand."""

import pytest
from helpers.support import tiny_config, tiny_experiment

from ser_jax.evaluate.cost.by_hand import step_flops
from ser_jax.evaluate.cost.compare import without_regularizer
from ser_jax.evaluate.cost.flops import by_part, flops_by_part
from ser_jax.methods.regularizers.base import NoRegularizer
from ser_jax.train.accounting import step_and_shapes
from ser_jax.train.experiment import build
from ser_jax.train.flops import flops_by_scope

pytestmark = pytest.mark.slow

WIDTH, PATCH, SIDE = 16, 4, 4  # of the tiny ViT, with 4 x 4 patches


def block(num_tokens):
    linear = 2 * num_tokens * WIDTH * (4 * WIDTH + 2 * 4 * WIDTH)
    return linear + 2 * 2 * num_tokens**2 * WIDTH


def test_a_small_moco_v3_with_ser_against_the_hand_count():
    experiment = tiny_experiment()
    report = flops_by_part(experiment)
    parts, by_hand = report["parts"], step_flops(experiment.learner, 16).parts
    counted = report["counted"]
    by_jaxpr, xla = counted["jaxpr"], counted["xla"]
    assert sum(parts.values()) == report["total"] == by_jaxpr["regularized"]
    assert counted["by_hand"] == by_jaxpr
    base = without_regularizer(experiment).learner
    assert by_jaxpr["base"] == step_flops(base, 16).total
    assert report["ratio"] == report["total"] / by_jaxpr["base"] > 1
    assert len(counted) == 5 and all(row["ratio"] > 1 for row in counted.values())
    assert xla["regularized"] > report["total"]
    assert parts["other"] == 0

    # Half of 16 images are in b2, on padded slots; two views; the class token joins
    # after one block of two. b2's table of positions is resized, rows then columns.
    group = experiment.learner.regularizer.make_group(SIDE)
    slots, most = group.num_slots, group.max_side
    embed, blocks = 0, 0
    for num_tokens in (SIDE**2, slots):
        embed += 2 * 8 * 2 * num_tokens * 3 * PATCH**2 * WIDTH
        blocks += 2 * 8 * (block(num_tokens) + block(num_tokens + 1))
    table = 2 * 8 * 2 * (most * SIDE * SIDE + most * most * SIDE) * WIDTH
    assert parts["student encoder forward"] == embed + blocks + table
    # Frozen patch embedding, fixed positions.
    assert parts["student encoder backward"] == 2 * blocks
    assert parts["target encoder"] == parts["student encoder forward"]

    heads = by_hand["heads"] + by_hand["InfoNCE"]
    assert parts["objective heads and loss"] == heads
    tokens = by_hand["token projector"] + by_hand["token logits"]
    assert parts["regularizer"] + parts["views"] + 2 * table == (
        tokens + by_hand["resizes"]
    )
    assert parts["regularizer"] > tokens and parts["views"] > 0


def test_the_base_is_the_same_run_without_its_regularizer():
    experiment = tiny_experiment()
    base = without_regularizer(experiment)
    assert isinstance(base.learner.regularizer, NoRegularizer)
    assert base.resolved == experiment.resolved
    assert base.learner.encoder.cls_insert == 0
    assert experiment.config["regularizer"]["name"] == "ser"  # not changed by it


@pytest.mark.parametrize(
    ("objective", "regularizer"), [("dino", "essl"), ("simclr", "none")]
)
def test_any_base_with_any_add_on_adds_up(objective, regularizer):
    experiment = build(tiny_config(objective, regularizer), 10**6)
    scopes = flops_by_scope(*step_and_shapes(experiment))
    parts = by_part(scopes)
    assert sum(parts.values()) == scopes.total()
    assert parts["student encoder backward"] > parts["student encoder forward"] > 0
    assert (parts["target encoder"] > 0) == (objective == "dino")
    assert (parts["regularizer"] > 0) == (regularizer != "none")
    assert parts["other"] == 0
