"""EquiMod's measures in evaluation mode, recomputed."""

import jax
import numpy as np
import pytest
from helpers.support import real_batch, tiny_experiment

from ser_jax.evaluate.layers.equimod import equimod_scores


def filled(shapes, seed=0):
    """Variables far from their initial values, as after training."""
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        if not np.issubdtype(leaf.dtype, np.floating):
            return np.zeros(leaf.shape, leaf.dtype)
        ones = "scale" in str(path[-1]) or "var" in str(path[-1])
        return ones + 0.3 * np.abs(rng.normal(size=leaf.shape)).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, shapes)


@pytest.mark.slow
def test_measures_are_those_of_evaluation_mode():
    # By digits' mean all pictures are bright, and plain ones too close for float32.
    settings = {"model.drop_path_rate": 0.5, "dataset.name": "imagenet2012"}
    experiment = tiny_experiment("equimod", **settings)
    learner, batch = experiment.learner, real_batch(experiment)
    state = jax.eval_shape(experiment.init_state, experiment.init_rng)
    variables, rng = filled(state.variables), jax.random.key(3)
    scores = equimod_scores(learner, variables, [batch], rng)

    views = jax.jit(learner.make_views)(jax.random.fold_in(rng, 0), batch, 0)

    @jax.jit
    def embeddings():
        encoder = {"params": variables.params["encoder"]}
        features = {
            name: learner.encoder.apply(encoder, view.images)
            for name, view in views.items()
        }
        heads = learner.regularizer.make_heads()
        trained = {
            "params": variables.params["regularizer"],
            "batch_stats": variables.batch_stats["student"]["regularizer"],
        }
        return [
            heads.apply(trained, features, {}, views, train, mutable=["batch_stats"])[0]
            for train in (False, True)
        ]

    def by_hand(outputs):
        gains, ratios = [], []
        for i, (view, predicted) in enumerate(
            zip(outputs.views, outputs.predicted, strict=True)
        ):
            plain = outputs.plain[i % len(outputs.plain)]

            def cosine(x, y):
                return x @ y / np.sqrt((x @ x) * (y @ y))

            gains.append(cosine(view, predicted) - cosine(view, plain))
            ratios.append((1 - cosine(view, plain)) / (1 - cosine(view, predicted)))
        return {"gain": np.mean(gains), "ratio": np.mean(ratios)}

    evaluation, training = (
        jax.tree.map(lambda x: np.asarray(x, np.float64), out) for out in embeddings()
    )
    assert scores == pytest.approx(by_hand(evaluation), rel=1e-3)
    assert scores != pytest.approx(by_hand(training), rel=0.05)


def test_other_runs_have_nothing_to_measure():
    learner = tiny_experiment("ser").learner
    with pytest.raises(ValueError, match="regularizer.name = 'equimod'.* is SER"):
        equimod_scores(learner, None, {}, jax.random.key(0))
