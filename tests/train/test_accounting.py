"""Accounting against numbers worked out by hand from shapes."""

import dataclasses

import pytest
from helpers.support import tiny_config, tiny_experiment

from ser_jax.evaluate.cost.by_hand import step_flops
from ser_jax.evaluate.cost.compare import compare_flops, without_regularizer
from ser_jax.methods.regularizers.ser import SER
from ser_jax.train.accounting import account
from ser_jax.train.experiment import build

pytestmark = pytest.mark.slow

# The tiny ViT: 16 px in patches of 4, width 16, 2 blocks, MLP of 64; local views 8 px.
GLOBAL, LOCAL = 16 + 1, 4 + 1  # tokens, the class token among them
BLOCK = 2 * 32 + (16 * 48 + 48) + (16 * 16 + 16) + (16 * 64 + 64) + (64 * 16 + 16)
ENCODER = (48 * 16 + 16) + 16 + 2 * BLOCK + 32  # embedding, class token, blocks, norm
PROJECTOR = 16 * 32 + 32 * 32 + 32 * 8 + 2 * 64  # two BatchNorms have scale and bias
PREDICTOR = 8 * 32 + 32 * 8 + 64
NORM = 32  # of the layer that the regularizer reads


def accounts(regularizer, objective="moco_v3", **overrides):
    config = tiny_config(objective, regularizer, **overrides)
    return account(build(config, 64))


def assert_holds(found, **expected):
    assert {name: found[name] for name in expected} == expected


def test_moco_v3_sees_two_views():
    """Red if a view, the class token or a pass is lost, or a head counted elsewhere."""
    found = accounts("none", **{"max_steps": 6})
    assert_holds(
        found,
        batch_size=16,
        epochs=1.5,  # 64 images are 4 steps
        views="2 x 16",
        num_views=2,
        num_views_by_px={16: 2},
        equiv_share=0.0,
        tokens_per_image_student=2 * GLOBAL,
        tokens_per_image_target=2 * GLOBAL,
        forward_passes_student=2,
        forward_passes_target=2,
        backward_passes=2,
        parameters={
            "encoder": ENCODER,
            "objective": PROJECTOR + PREDICTOR,
            "regularizer": 0,
            "target": ENCODER + PROJECTOR,
        },
    )
    assert found["flops_per_image"] == found["flops_per_step"] / 16


def test_ser_pads_b2_and_inserts_the_class_token_late():
    """Red if b2 counts as further views or its slots as 16, or CLS in both blocks."""
    # Half the batch is b2: its 16 tokens grow up to 1.3 times, to 20, in 24 slots.
    both = 2 * (0.5 * 16 + 0.5 * 24 + 0.5)
    found = accounts("ser")
    assert_holds(
        found,
        views="2 x 16",
        equiv_share=0.5,
        tokens_per_image_student=both,
        tokens_per_image_target=both,
        forward_passes_student=2,
        forward_passes_target=2,
        backward_passes=2,
    )
    assert found["parameters"] == {
        "encoder": ENCODER,
        "objective": PROJECTOR + PREDICTOR,
        "regularizer": 16 * 16 + 16 * 16 + NORM,
        "target": ENCODER + PROJECTOR + NORM,
    }


@pytest.mark.slow
def test_ser_on_multi_crop():
    """Red if the target's forward passes leave out b2's local views."""
    # Local views: 4 tokens, up to 5, in 8 slots.
    student = 2 * (0.5 * 16 + 0.5 * 24 + 0.5) + 4 * (0.5 * 4 + 0.5 * 8 + 0.5)
    target = 2 * (0.5 * 16 + 0.5 * 24 + 0.5) + 4 * 0.5 * (8 + 0.5)
    assert_holds(
        accounts("ser", **{"objective.num_local": 4}),
        views="2 x 16 + 4 x 8",
        num_views=6,
        num_views_by_px={16: 2, 8: 4},
        tokens_per_image_student=student,
        tokens_per_image_target=target,
        forward_passes_student=6,
        forward_passes_target=2 + 4 * 0.5,
        backward_passes=6,
    )


def test_equimod_adds_a_view_that_the_target_does_not_see():
    """Red if the plain view is left out, or the target is given it too."""
    assert_holds(
        accounts("equimod"),
        views="3 x 16",
        tokens_per_image_student=3 * GLOBAL,
        tokens_per_image_target=2 * GLOBAL,
        forward_passes_student=3,
        forward_passes_target=2,
    )


def test_essl_adds_four_small_views():
    """Red if the turned copies of one crop count as one view, or at full size."""
    found = accounts("essl")
    assert_holds(
        found,
        views="2 x 16 + 4 x 8",
        num_views=6,
        tokens_per_image_student=2 * GLOBAL + 4 * LOCAL,
        forward_passes_student=6,
        forward_passes_target=2,
    )
    hidden = 2 * (16 * 16 + 16 + 32)
    bottleneck, logits = 16 * 8 + 8 + 16, 8 * 4 + 4
    extra = found["parameters"]["regularizer"]
    assert extra == hidden + bottleneck + logits + NORM


def test_no_target_network():
    """Red if a method without a target is charged for one."""
    found = accounts("stl", "simclr")
    assert_holds(
        found,
        forward_passes_student=2,
        forward_passes_target=0,
        tokens_per_image_target=0,
    )
    assert found["parameters"]["target"] == 0


def test_flops_are_the_hand_count_and_leave_out_recomputation():
    """Red if `remat` counts, or the step is another one than the one trained."""
    config = tiny_config(
        **{"model.pos_embed": "learned", "batch_size": 32, "model.remat": True}
    )
    experiment = build(config, 64)
    by_hand = step_flops(experiment.learner, 32).total
    assert account(experiment)["flops_per_step"] == by_hand


@pytest.mark.slow
def test_a_resnet_has_cells_and_no_class_token():
    """Red if a ViT's attributes are asked of a ResNet."""
    config = tiny_config(
        **{
            "model.variant": "resnet18",
            "model.width": 4,
            "model.small_images": True,
            "model.freeze_patch_embed": False,
            "model.depth": 0,
            "model.num_heads": 0,
        }
    )
    whole = build(config, 64)
    base, regularized = map(shallow, (without_regularizer(whole), whole))
    canvas = 3 * 3  # of pictures of 2 x 2 cells, up to 1.3 times as large, aspect 4:3
    assert_holds(
        account(regularized),
        views="2 x 16",
        tokens_per_image_student=2 * (0.5 * 4 + 0.5 * canvas),
        forward_passes_target=2,
    )
    figures = compare_flops(base, regularized)
    assert figures["flops_ratio"] > 1
    assert "flops_ratio_same_cls_layer" not in figures


def shallow(experiment):
    """A ResNet of one block a stage: quicker to trace."""
    encoder = experiment.learner.encoder.clone(stage_sizes=(1, 1, 1, 1))
    learner = dataclasses.replace(experiment.learner, encoder=encoder)
    return dataclasses.replace(experiment, learner=learner)


@pytest.mark.parametrize(
    "part, changes",
    [
        ("objective", {"num_local": 2}),
        ("regularizer", {"directions": "forward"}),
        ("regularizer", {"layers": (1, 2)}),
    ],
)
def test_the_hand_count_refuses_what_it_does_not_know(part, changes):
    """Red if the arithmetic of two views and one layer is used for more."""
    learner = tiny_experiment().learner
    assert isinstance(learner.regularizer, SER)
    changed = dataclasses.replace(getattr(learner, part), **changes)
    with pytest.raises(ValueError, match="count_flops"):
        step_flops(dataclasses.replace(learner, **{part: changed}), 16)
