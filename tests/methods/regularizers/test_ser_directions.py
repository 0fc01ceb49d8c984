"""Where rows of b1 lie among b2's, SER's term is that of b2's alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.support import assert_close, tiny_experiment

from ser_jax.geometry import group
from ser_jax.geometry.action import slot_cells
from ser_jax.methods.regularizers.ser import SER, SEROutputs
from ser_jax.models.outputs import TokenGrid
from ser_jax.train.sharding import make_mesh
from ser_jax.train.step import make_train_step
from ser_jax.views.recipe import Recipe
from ser_jax.views.view import Cut, View

DIM, BATCH, B2 = 4, 24, 12
CASES = [  # views, images of b2 that take part, settings
    (2, 12, {}),
    (4, 7, {"equiv_grad": "both"}),
    (
        *(4, 12),
        {"equiv_grad": "both", "negatives": "opposite", "directions": "forward"},
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize("num_views, num_active, settings", CASES)
def test_rows_of_b1_among_b2s_change_nothing(num_views, num_active, settings):
    rng, drawn = np.random.default_rng(num_views), group.Group(base_side=3)
    pairs = [drawn.sample_pair(jax.random.key(i), B2) for i in range(num_views // 2)]
    exact, mixed = Cut.exact(BATCH, B2), Cut.on(8, BATCH, B2)
    assert not mixed.is_exact
    size = (2, num_views, mixed.num_rows, drawn.num_slots, DIM)
    tokens = rng.normal(size=size).astype(np.float32)
    ser = SER(layer=1, **settings)

    def term(tokens, cut):
        """Of b2's rows alone; or of all, in which others are moved by its first."""
        rows = np.flatnonzero(mixed.images >= 0) if cut.is_exact else slice(None)
        views, grids = {}, ({}, {})
        for j, element in enumerate(element for pair in pairs for element in pair):
            own = jax.tree.map(lambda x: x[np.maximum(cut.images, 0)], element)
            images = jnp.asarray(cut.images)
            active = (images >= 0) & (images < num_active)
            views[f"equiv/{j}"] = View(
                *(jnp.zeros((cut.num_rows, 1)), jnp.zeros(()), Recipe()),
                *(own, drawn, active, cut),
            )
            valid = slot_cells(own.grid_shape, drawn.num_slots)[2]
            for network, found in zip(tokens, grids, strict=True):
                found[f"equiv/{j}"] = TokenGrid(network[j][rows], own.grid_shape, valid)
        return ser.loss(SEROutputs(*({1: found} for found in grids)), views)[0]

    value_and_grad = jax.jit(jax.value_and_grad(term), static_argnums=1)
    plain, gradient = value_and_grad(tokens, exact)
    with jax.set_mesh(make_mesh()):
        among, its_gradient = value_and_grad(tokens, mixed)
    np.testing.assert_allclose(among, plain, rtol=1e-6)
    assert plain > 0 and np.any(gradient)
    assert_close(its_gradient, gradient, 1e-5, 1e-8)


@pytest.mark.parametrize("equiv_grad", ["query", "both"])
def test_it_trains_in_bfloat16(equiv_grad):
    """Keys have the compute dtype, their gradient's sum has not. Traced alone."""
    settings = {"model.dtype": "bfloat16", "regularizer.equiv_grad": equiv_grad}
    experiment = tiny_experiment(**settings)
    state = jax.eval_shape(experiment.init_state, experiment.init_rng)
    step = make_train_step(
        experiment.learner,
        experiment.optimizer,
        experiment.learning_rate,
        experiment.step_rng,
    )
    jax.eval_shape(step, state, experiment.abstract_batch())
