"""Where b2's views are rows of one array on any devices, the term is the plain one."""

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
from ser_jax.views.view import View

DIM = 4
CASES = [  # views, images, of which active, settings
    (2, 5, 5, {}),  # 10 rows on 8 devices: two each, and padding
    (4, 6, 4, {"equiv_grad": "both"}),  # 24 rows: three each; rows that rest
    (
        *(4, 3, 3),
        {"equiv_grad": "both", "negatives": "opposite", "directions": "forward"},
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize("num_views, num_images, num_active, settings", CASES)
def test_spread_rows_give_the_plain_term(num_views, num_images, num_active, settings):
    rng, drawn = np.random.default_rng(num_views), group.Group(base_side=3)
    pairs = [
        drawn.sample_pair(jax.random.key(i), num_images) for i in range(num_views // 2)
    ]
    elements = [element for pair in pairs for element in pair]
    own = num_images * num_views
    num_rows = -(-own // 8) * 8
    shapes = np.stack([e.grid_shape for e in elements], axis=1).reshape(-1, 2)
    shapes = jnp.pad(jnp.asarray(shapes), [(0, num_rows - own), (0, 0)], mode="edge")
    valid = slot_cells(shapes, drawn.num_slots)[2]
    size = (2, num_rows, drawn.num_slots, DIM)
    tokens = rng.normal(size=size).astype(np.float32)
    active = jnp.arange(num_images) < num_active
    ser = SER(layer=1, **settings)

    def term(tokens, is_spread):
        def rows(number):
            return slice(None) if is_spread else slice(number, own, num_views)

        views = {
            f"equiv/{j}": View(
                jnp.zeros((num_rows, 1)),
                jnp.zeros(()),
                Recipe(),
                element,
                drawn,
                active,
                spread=num_views * is_spread,
                number=j,
            )
            for j, element in enumerate(elements)
        }
        student, target = (
            {
                1: {
                    name: TokenGrid(x[rows(j)], shapes[rows(j)], valid[rows(j)])
                    for j, name in enumerate(views)
                }
            }
            for x in tokens
        )
        return ser.loss(SEROutputs(student, target), views)[0]

    value_and_grad = jax.jit(jax.value_and_grad(term), static_argnums=1)
    plain, gradient = value_and_grad(tokens, False)
    with jax.set_mesh(make_mesh()):
        spread, its_gradient = value_and_grad(tokens, True)
    np.testing.assert_allclose(spread, plain, rtol=1e-6)
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
