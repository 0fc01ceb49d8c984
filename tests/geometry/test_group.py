"""D4 is a group, and elements are drawn as described."""

import itertools

import jax
import numpy as np
import pytest
from helpers.support import d4_on_array

from ser_jax.geometry import group

ALL = range(8)

compose = jax.jit(group.compose)
inverse = jax.jit(group.inverse)
relative = jax.jit(group.relative)


def sample_pair(drawn, seed, batch):
    pair = jax.jit(drawn.sample_pair, static_argnums=1)(jax.random.key(seed), batch)
    return jax.device_get(pair)


def test_compose_is_action_after_action():
    x = np.arange(9).reshape(3, 3)
    for g, h in itertools.product(ALL, ALL):
        gh = int(compose(g, h))
        np.testing.assert_array_equal(
            d4_on_array(gh, x), d4_on_array(g, d4_on_array(h, x))
        )


def test_inverse_on_both_sides():
    g = np.arange(8)
    np.testing.assert_array_equal(compose(g, inverse(g)), 0)
    np.testing.assert_array_equal(compose(inverse(g), g), 0)


def test_associative_on_all_triples():
    g, h, k = np.transpose(list(itertools.product(ALL, repeat=3)))
    np.testing.assert_array_equal(compose(compose(g, h), k), compose(g, compose(h, k)))


def test_elements_are_distinct_and_named_ones_mean_what_they_say():
    x = np.arange(9).reshape(3, 3)
    assert len({d4_on_array(g, x).tobytes() for g in ALL}) == 8
    np.testing.assert_array_equal(d4_on_array(group.HFLIP, x), np.fliplr(x))
    for k, turns in enumerate(group.QUARTER_TURNS):
        np.testing.assert_array_equal(d4_on_array(turns, x), np.rot90(x, k))
    assert group.QUARTER_TURNS[2] == group.ROT180


def test_static_sizes_of_the_paper_grid():
    paper = group.Group(base_side=14)
    assert (paper.num_slots, paper.max_side) == (256, 18)


@pytest.mark.parametrize("sampling", ["independent", "release"])
@pytest.mark.parametrize("base_side", [4, 8, 14])
def test_every_draw_fits_the_static_sizes(sampling, base_side):
    drawn = group.Group(base_side=base_side, sampling=sampling)
    draw = jax.jit(jax.vmap(lambda key: drawn.sample_pair(key, 4)))
    for element in jax.device_get(draw(jax.random.split(jax.random.key(0), 2000))):
        assert element.grid_shape.prod(axis=-1).max() <= drawn.num_slots
        assert element.grid_shape.max() <= drawn.max_side
        assert element.grid_shape.min() >= 1
        assert set(np.unique(element.d4)) == set(ALL)


def test_grid_shapes_are_spread_over_the_ranges():
    draw = jax.jit(group.Group(base_side=14).sample_grid_shape, static_argnums=1)
    shapes = np.asarray(draw(jax.random.key(1), (20000,)))
    tokens = np.prod(shapes, axis=-1)
    assert abs(tokens.mean() - 196) < 2
    assert tokens.min() < 0.75 * 196 and tokens.max() > 1.25 * 196
    assert abs(np.log(shapes[:, 0] / shapes[:, 1]).mean()) < 0.01


@pytest.mark.slow
def test_independent_sampling_reaches_all_relative_elements():
    view0, view1 = sample_pair(group.Group(base_side=4), 2, 2000)
    counts = np.bincount(relative(view1, view0).d4, minlength=8)
    assert counts.min() > 2000 / 8 * 0.7


@pytest.mark.slow
def test_release_sampling_gives_reflections_only_and_one_grid_a_view():
    draw = jax.jit(
        group.Group(base_side=8, sampling="release").sample_pair, static_argnums=1
    )
    seen = set()
    for seed in range(40):
        view0, view1 = draw(jax.random.key(seed), 6)
        for view in (view0, view1):
            assert len(np.unique(view.grid_shape, axis=0)) == 1
        carried = np.unique(relative(view1, view0).d4)
        assert len(carried) == 1  # the flags cancel: one action for the whole batch
        seen.add(int(carried[0]))
    reflections = {group.HFLIP, 2, 4, 7}  # left-right, up-down, both diagonals
    assert seen == reflections


def test_relative_lands_on_the_destination_grid():
    source = group.Element(np.array([5]), np.array([[3, 4]]))
    destination = group.Element(np.array([1]), np.array([[6, 2]]))
    carried = relative(destination, source)
    assert compose(carried.d4, source.d4) == destination.d4
    np.testing.assert_array_equal(carried.grid_shape, [[6, 2]])


@pytest.mark.parity
def test_grid_shapes_match_the_recorded_draws(golden):
    data = golden("group_action")
    image_size, area_factor, aspect, rows, cols, _ = data["draws/table"].T
    area = (image_size / data.settings["draws"]["stride"]) ** 2 * area_factor
    sides = jax.jit(group.resized_grid)(area, aspect)
    np.testing.assert_array_equal(np.round(sides), np.stack([rows, cols], axis=-1))


@pytest.mark.parametrize(
    "field, value",
    [("area_range", (1.3, 0.7)), ("aspect_range", (0, 1)), ("sampling", "relase")],
)
def test_bad_settings_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        group.Group(base_side=8, **{field: value})


@pytest.mark.slow
@pytest.mark.parametrize(
    "rotations, flips, elements",
    [
        (True, True, range(8)),
        (True, False, group.QUARTER_TURNS),
        (False, True, (group.IDENTITY, group.HFLIP)),
        (False, False, (group.IDENTITY,)),
    ],
)
def test_parts_of_the_group_are_subgroups(rotations, flips, elements):
    part = group.Group(base_side=4, rotations=rotations, flips=flips)
    view0, view1 = sample_pair(part, 0, 300)
    for d4 in (view0.d4, view1.d4, relative(view1, view0).d4):
        assert set(np.unique(d4)) == set(elements)


def test_d4_alone_keeps_the_grid():
    view0, _ = sample_pair(group.Group(4, (1.0, 1.0), (1.0, 1.0)), 0, 50)
    np.testing.assert_array_equal(view0.grid_shape, 4)


def test_release_sampling_needs_the_whole_group():
    with pytest.raises(ValueError, match="leave one of them out"):
        group.Group(base_side=4, flips=False, sampling="release")
