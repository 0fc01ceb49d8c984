"""Warnings of a collapse: none on healthy runs, plain on collapsed ones, said once."""

import logging
import math

import jax
import pytest
from helpers.support import tiny_experiment

from ser_jax.train.health import HealthWatch, Scale, judge, scale_of, watched

SCALE = Scale(embedding_dim=64, cls_dim=64, num_prototypes=256, warmup_steps=20)
# The worst of each that runs on digits (docs/digits.md) logged and yet learned.
HEALTHY = {
    "embedding_std": 0.0871,
    "cls_std": 0.0157,
    "teacher_entropy": 4.056,
    "rankme": 5.97,
    "grad_norm": 5.0,
    "grad_norm_block_01": 1.0,
    "grad_norm_block_02": 0.4,
    "grad_norm_equiv": 0.315,
    "loss_equiv": 6.3,
    "equiv_weight": 1.0,
}
# DINO without BatchNorm in its head, and with a teacher temperature of 0.02.
UNIFORM = {"embedding_std": 0.0064, "cls_std": 0.0186, "teacher_entropy": 5.531}


def kinds(values):
    return {kind for kind, warning in judge(values, SCALE).items() if warning}


def feed(watch, rows, first_step=30):
    return [w for i, row in enumerate(rows) for w in watch(first_step + 10 * i, row)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, set()),
        (UNIFORM, {"embedding_std", "uniform teacher"}),
        ({"teacher_entropy": 0.04}, {"certain teacher"}),
        ({"cls_std": 0.004}, {"cls_std"}),
        ({"rankme": 1.05}, {"rankme"}),
        ({"grad_norm_equiv": 0.0}, {"grad_norm_equiv"}),
        ({"grad_norm_equiv": 0.0, "equiv_weight": 0.0}, set()),
        ({"grad_norm_equiv": 0.0, "loss_equiv": 0.0}, set()),  # no image takes part
        ({"grad_norm_block_02": 0.0}, {"blocks without gradient"}),
    ],
)
def test_a_row_is_judged(values, expected):
    assert kinds(HEALTHY | values) == expected


def test_what_is_not_logged_or_not_finite_is_not_judged():
    assert judge({"loss": 1.0, "teacher_kl_to_uniform": 0.0}, SCALE) == {}
    assert kinds({name: math.nan for name in HEALTHY}) == set()
    no_teacher = Scale(64, 64, None, 20)
    assert "uniform teacher" not in judge({"teacher_entropy": 5.5}, no_teacher)


def test_warnings_have_one_sentence_on_the_meaning_and_one_on_the_remedy():
    ill = UNIFORM | {"cls_std": 0.0, "rankme": 1.0, "grad_norm_equiv": 0.0}
    ill |= {"grad_norm_block_01": 0.0}
    found = judge(HEALTHY | ill, SCALE)
    for kind in ("cls_std", "uniform teacher", "rankme", "grad_norm_equiv"):
        meaning, remedy = found[kind].split(". ")
        assert ": " in meaning and remedy.startswith(("Try ", "Check "))
    assert found["blocks without gradient"].startswith("grad_norm_block_01: 0, ")


def test_a_collapse_is_told_once_when_it_has_lasted():
    watch = HealthWatch(SCALE)
    ill = HEALTHY | {"teacher_entropy": 5.53}
    assert feed(watch, [ill, ill, HEALTHY, ill, ill]) == []
    (warning,) = feed(watch, [ill, ill, ill], first_step=80)
    assert "the teacher says nothing" in warning


def test_rows_between_without_the_metric_do_not_count():
    probe = {"knn_accuracy": 0.8}
    ill = HEALTHY | {"teacher_entropy": 5.53}
    assert len(feed(HealthWatch(SCALE), [ill, probe, ill, probe, ill])) == 1


def test_nothing_is_judged_during_the_warmup():
    watch = HealthWatch(SCALE)
    ill = HEALTHY | UNIFORM
    assert [watch(step, ill) for step in (1, 5, 10, 15, 20)] == [[]] * 5
    assert [len(watch(step, ill)) for step in (21, 22, 23)] == [0, 0, 2]


def test_accuracy_below_that_of_the_untrained_encoder():
    def probed(*accuracies):
        watch = HealthWatch(SCALE)
        watch(0, {"knn_accuracy": 0.798})
        return feed(watch, [{"knn_accuracy": x} for x in accuracies])

    assert probed(0.7912, 0.7912, 0.85, 0.731, 0.82) == []  # ups and downs
    (warning,) = probed(0.7912, 0.7710, 0.7744, 0.758)
    assert "0.774, less than 0.798 before training" in warning
    assert feed(HealthWatch(SCALE), [{"knn_accuracy": 0.1}] * 3) == []  # none before


def test_an_exploding_block_against_its_own_past():
    watch = HealthWatch(SCALE)
    usual = [HEALTHY | {"grad_norm_block_02": x} for x in (0.2, 0.4, 1.9) * 4]
    wild = HEALTHY | {"grad_norm_block_02": 6.0}
    assert feed(watch, [*usual, wild, HEALTHY, wild, HEALTHY]) == []
    (warning,) = feed(watch, [wild] * 4, first_step=400)
    assert warning.startswith("grad_norm_block_02 is 15 times its recent median")


def test_warnings_reach_the_log_and_a_resumed_run_does_not_repeat_them(caplog):
    written = []
    ill = HEALTHY | UNIFORM
    past = [{"step": step} | ill for step in (30, 40, 50)]
    fresh = watched(lambda *row: written.append(row), SCALE)
    resumed = watched(lambda *row: None, SCALE, past)
    with caplog.at_level(logging.WARNING, "ser_jax.train.health"):
        for row in past:
            fresh(row["step"], row)
        assert len(caplog.messages) == 2
        assert caplog.messages[0].startswith("Step 50: embedding_std is 0.0064")
        for step in (60, 70, 80):
            resumed(step, ill)
        assert len(caplog.messages) == 2
    assert written == [(row["step"], row) for row in past]


@pytest.mark.parametrize(
    ("objective", "expected"),
    [("dino", Scale(8, 16, 12, 4)), ("moco_v3", Scale(12, 16, None, 4))],
)
def test_the_scale_of_an_experiment(objective, expected):
    overrides = {"objective.output_dim": 12}
    experiment = tiny_experiment("none", objective=objective, **overrides)
    state = jax.eval_shape(experiment.init_state, experiment.init_rng)
    assert scale_of(experiment, state.variables) == expected
