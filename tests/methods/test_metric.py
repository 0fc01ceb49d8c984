"""Every metric that is logged is declared, once, where it is computed."""

import collections
import itertools

import jax
import numpy as np
import pytest
from helpers.support import tiny_config

from ser_jax.methods.objectives import OBJECTIVES
from ser_jax.methods.regularizers import REGULARIZERS
from ser_jax.methods.regularizers.augself_targets import TARGETS
from ser_jax.methods.variables import CLS_STD, LOSSES
from ser_jax.report.curves import compared_metrics, declared_metrics, draw_run
from ser_jax.train.experiment import build
from ser_jax.train.step import (
    GRAD_NORMS,
    SCHEDULES,
    make_equiv_grad_norm,
    make_train_step,
)


def names(metrics):
    return {metric.name for metric in metrics}


# Every one of both: that the names of the two are disjoint is tested below.
NUM_PAIRS = max(len(OBJECTIVES), len(REGULARIZERS))
PAIRS = [
    (objective, regularizer)
    for _, objective, regularizer in zip(
        range(NUM_PAIRS),
        itertools.cycle(OBJECTIVES),
        itertools.cycle(REGULARIZERS),
        strict=False,
    )
]


@pytest.mark.slow
@pytest.mark.parametrize("objective, regularizer", PAIRS)
def test_a_step_logs_what_is_declared(objective, regularizer):
    """Shapes alone: nothing is compiled. Red if a name is not, or no longer, logged."""
    config = tiny_config(objective, regularizer, **{"augment.recipe": "moco_v3"})
    if regularizer == "augself":  # all that it can be asked for
        config.update_from_flattened_dict({"augment.rot90_prob": 0.5})
        config.regularizer.update({f"{target}_weight": 1.0 for target in TARGETS})
    experiment = build(config, 64)
    state = jax.eval_shape(experiment.init_state, experiment.init_rng)
    learner, batch = experiment.learner, experiment.abstract_batch()
    step = make_train_step(
        learner, experiment.optimizer, experiment.learning_rate, experiment.step_rng
    )
    logged = set(jax.eval_shape(step, state, batch)[1])
    if regularizer == "ser":
        norm = make_equiv_grad_norm(learner, experiment.step_rng)
        logged |= set(jax.eval_shape(norm, state, batch))
    assert logged <= names(declared_metrics())
    common = names([*LOSSES, CLS_STD, *GRAD_NORMS, *SCHEDULES])
    own = (*OBJECTIVES[objective].metrics, *REGULARIZERS[regularizer].metrics)
    assert logged - common == names(own)


def test_declarations_do_not_contradict_each_other():
    """Red if two declare one name differently, or the two halves overwrite a name."""
    counts = collections.Counter(metric.name for metric in declared_metrics())
    assert max(counts.values()) == 1
    halves = [
        names(metric for method in registry.values() for metric in method.metrics)
        for registry in (OBJECTIVES, REGULARIZERS)
    ]
    assert not halves[0] & halves[1]
    assert all(metric.label and metric.panel.title for metric in declared_metrics())


def test_what_was_drawn_and_compared_before_still_is(tmp_path, figures):
    """The panels that every run had, in their order, and what runs are compared by."""
    curve = np.ones((2, 2))
    logged = ("loss", "grad_norm", "knn_accuracy", "contrastive_accuracy", "cls_std")
    more = ("lr", "images_per_s", "equiv_weight")  # a constant weight says nothing
    assert draw_run(tmp_path / "curves.png", dict.fromkeys((*logged, *more), curve))
    assert [ax.get_title(loc="left") for ax in figures[0].axes] == [
        *("loss", "gradient norm", "k-NN accuracy", "contrastive accuracy"),
        *("standard deviation of the class token", "learning rate"),
        "images per second",
    ]
    assert [m.name for m in compared_metrics()][:6] == [
        *("knn_accuracy", "rankme", "loss", "loss_inv", "loss_equiv"),
        "grad_norm_equiv",
    ]
    assert names(compared_metrics()) >= {
        *("embedding_std", "cls_std", "teacher_entropy", "contrastive_accuracy"),
        *("rotation_accuracy", "mean_correlation"),
    }
