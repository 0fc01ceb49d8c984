"""SER's term: which pairs, which layers, which direction, which rows."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ser_jax.geometry import action as geometry
from ser_jax.geometry import group
from ser_jax.methods.objectives.base import standard_views
from ser_jax.methods.regularizers.ser import SER, SEROutputs
from ser_jax.models.outputs import TokenGrid
from ser_jax.views.recipe import Recipe
from ser_jax.views.view import Cut, View

pytestmark = pytest.mark.slow

SIDE, BATCH, DIM = 4, 6, 5
act = jax.jit(geometry.act_on_grid, static_argnames="max_side")


def term(ser, student, target, views):
    return jax.jit(lambda *x: ser.loss(SEROutputs(*x[:2]), x[2])[0])(
        student, target, views
    )


def pair(seed, first=0):
    """Two geometric views and token grids that move with them, scale apart."""
    drawn = group.Group(SIDE, (1.0, 1.0), (1.0, 1.0))
    elements = drawn.sample_pair(jax.random.key(seed), BATCH)
    base = jax.random.normal(jax.random.key(seed + 1), (BATCH, SIDE**2, DIM))
    shape = jnp.full((BATCH, 2), SIDE)
    views, grids = {}, {}
    for i, element in enumerate(elements):
        name = f"equiv/{first + i}"
        tokens = act(base, shape, element, max_side=SIDE)
        valid = jnp.ones((BATCH, SIDE**2), bool)
        grids[name] = TokenGrid(tokens, shape, valid)
        views[name] = View(
            jnp.zeros(()),
            jnp.zeros(()),
            Recipe(),
            element,
            drawn,
            jnp.ones(BATCH, bool),
            Cut.exact(2 * BATCH, BATCH),
        )
    return views, grids


def noisy(grids, seed=9):
    def add(name, grid):
        key = jax.random.fold_in(jax.random.key(seed), int(name[-1]))
        noise = jax.random.normal(key, grid.tokens.shape) / 2
        return dataclasses.replace(grid, tokens=grid.tokens + noise)

    return {name: add(name, grid) for name, grid in grids.items()}


@pytest.fixture
def case():
    views, grids = pair(0)
    more_views, more_grids = pair(4, first=2)
    return views | more_views, grids | more_grids


def loss(ser, views, *layers):
    student = dict(enumerate(layers, start=1))
    ser = dataclasses.replace(ser, layers=tuple(student), layer=1)
    target = {layer: noisy(grids, 7) for layer, grids in student.items()}
    return term(ser, student, target, views)


def subset(case, *names):
    views, grids = case
    return {n: views[n] for n in names}, {n: grids[n] for n in names}


def test_term_is_the_mean_over_pairs_layers_and_directions(case):
    views, grids = case
    first = subset(case, "equiv/0", "equiv/1")
    second = subset(case, "equiv/2", "equiv/3")
    parts = [loss(SER(), *first), loss(SER(), *second)]
    np.testing.assert_allclose(loss(SER(), views, grids), np.mean(parts), rtol=1e-6)
    other = noisy(first[1])
    layers = [loss(SER(), *first), loss(SER(), first[0], other)]
    both = loss(SER(), *first, other)
    np.testing.assert_allclose(both, np.mean(layers), rtol=1e-6)

    grids = first[1] | {"equiv/0": noisy(first[1])["equiv/0"]}
    one_way = SER(directions="forward", layers=(1,))

    def forward(names):
        """With the views under each other's names, the other direction."""
        views, read = (
            dict(zip(first[0], (part[name] for name in names), strict=True))
            for part in (first[0], grids)
        )
        return term(one_way, {1: read}, {1: read}, views)

    there, back = forward(["equiv/0", "equiv/1"]), forward(["equiv/1", "equiv/0"])
    assert abs(there - back) > 1e-3
    both = term(SER(layers=(1,)), {1: grids}, {1: grids}, first[0])
    np.testing.assert_allclose((there + back) / 2, both, rtol=1e-6)


def test_released_multicrop_sums_over_pairs_and_colours_b2_as_locals(case):
    """Of three pairs three times the mean; layers and directions are averaged."""
    views, grids = case
    mean, total = (loss(SER(pairs=pairs), views, grids) for pairs in ("mean", "sum"))
    np.testing.assert_allclose(total, 2 * mean, rtol=1e-6)
    one = subset(case, "equiv/0", "equiv/1")
    both_layers = [
        loss(SER(pairs=pairs), one[0], one[1], noisy(one[1]))
        for pairs in ("mean", "sum")
    ]
    np.testing.assert_allclose(*both_layers, rtol=1e-6)
    objective = standard_views(4)
    for colour, expected in (
        ("own", [spec.photometry for spec in objective]),
        ("local", ["local"] * 6),
    ):
        specs = SER(colour=colour).views(objective)
        assert [spec.photometry for spec in specs] == expected
        assert [spec.small for spec in specs] == [spec.small for spec in objective]


def test_aligned_tokens_are_what_the_term_rewards(case):
    views, grids = subset(case, "equiv/0", "equiv/1")
    target = {1: grids}
    moved = SER(layers=(1,)).loss(SEROutputs({1: grids}, target), views)[0]
    still = {"equiv/0": grids["equiv/0"], "equiv/1": grids["equiv/0"]}
    left = SER(layers=(1,)).loss(SEROutputs({1: still}, {1: still}), views)[0]
    assert moved < left


def test_inactive_rows_change_nothing(case):
    views, grids = subset(case, "equiv/0", "equiv/1")
    active = jnp.arange(BATCH) < 4
    masked = {n: dataclasses.replace(v, active=active) for n, v in views.items()}

    def cut(tree):
        return jax.tree.map(lambda x: x[:4] if x.shape[:1] == (BATCH,) else x, tree)

    few, few_grids = cut((views, grids))
    few = {n: dataclasses.replace(v, cut=Cut.exact(8, 4)) for n, v in few.items()}
    expected = loss(SER(), few, few_grids)
    np.testing.assert_allclose(loss(SER(), masked, grids), expected, rtol=1e-6)
    none = {n: dataclasses.replace(v, active=active & False) for n, v in views.items()}
    assert loss(SER(), none, grids) == 0


def test_grids_finer_than_patches_move_by_as_many_cells(case):
    """A ResNet's early stage: two cells to a patch's side."""
    views, _ = subset(case, "equiv/0", "equiv/1")
    base = jax.random.normal(jax.random.key(3), (BATCH, (2 * SIDE) ** 2, DIM))
    shape = jnp.full((BATCH, 2), 2 * SIDE)
    grids = {}
    for name, view in views.items():
        element = group.Element(view.element.d4, shape)
        tokens = act(base, shape, element, max_side=2 * SIDE)
        valid = jnp.ones(tokens.shape[:2], bool)
        grids[name] = TokenGrid(tokens, shape, valid, scale=2)
    ser = SER(layers=(1,), negatives="opposite", temperature=0.01)
    aligned = term(ser, {1: grids}, {1: grids}, views)
    assert aligned < 0.1  # every token is its own positive, others are far
    moved = {"equiv/0": grids["equiv/0"], "equiv/1": grids["equiv/0"]}
    assert term(ser, {1: moved}, {1: moved}, views) > 5


@pytest.mark.parametrize(
    "field, value",
    [
        ("pairs", "all"),
        ("colour", "gray"),
        ("directions", "back"),
        ("kernel", "cubic"),
        ("layer", 0),
        ("layers", (0, 2)),
    ],
)
def test_bad_settings_are_refused(field, value):
    with pytest.raises(ValueError, match="layers" if "layer" in field else field):
        SER(**{field: value})
