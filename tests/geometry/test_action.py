"""Elements act on images and token grids alike, and exactly where they can."""

import functools

import jax
import numpy as np
import pytest
from helpers.support import assert_close, d4_on_array

from ser_jax.geometry import action as geometry
from ser_jax.geometry import group

pytestmark = pytest.mark.slow

resize_operator = jax.jit(
    geometry.resize_operator, static_argnames=("max_in", "max_out", "kernel")
)
act_on_image = jax.jit(
    geometry.act_on_image, static_argnames=("patch_size", "max_side")
)
act_on_grid = jax.jit(geometry.act_on_grid, static_argnames="max_side")
relative = jax.jit(group.relative)
release_element = jax.jit(group.release_element)


def slots_of(grids: np.ndarray, num_slots: int) -> np.ndarray:
    """Puts `[b, h, w, d]` grids into slots."""
    b, h, w, d = grids.shape
    flat = grids.reshape(b, h * w, d)
    return np.pad(flat, [(0, 0), (0, num_slots - h * w), (0, 0)])


def shapes_of(grids: np.ndarray) -> np.ndarray:
    return np.tile(grids.shape[1:3], (len(grids), 1))


def cubic_resize_reference(x: np.ndarray, num_out: int) -> np.ndarray:
    """Bicubic resize of the first axis by an explicit loop, float64."""
    a, num_in = -0.75, len(x)
    out = np.zeros((num_out, *x.shape[1:]))
    for o in range(num_out):
        centre = (o + 0.5) * num_in / num_out - 0.5
        base = int(np.floor(centre))
        for tap in range(base - 1, base + 3):
            t = abs(centre - tap)
            if t <= 1:
                weight = (a + 2) * t**3 - (a + 3) * t**2 + 1
            else:
                weight = a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a
            out[o] += weight * x[min(max(tap, 0), num_in - 1)]
    return out


@pytest.mark.parametrize("num_in, num_out", [(14, 18), (14, 10), (5, 5), (3, 7)])
def test_resize_operator_matches_an_explicit_loop(num_in, num_out):
    x = np.random.default_rng(0).normal(size=(num_in, 2))
    matrix = np.asarray(resize_operator(num_in, num_out, 18, 20))
    padded = np.pad(x, [(0, 18 - num_in), (0, 0)], constant_values=7.0)
    expected = cubic_resize_reference(x, num_out)
    np.testing.assert_allclose((matrix @ padded)[:num_out], expected, atol=5e-6)
    assert not matrix[num_out:].any() and not matrix[:, num_in:].any()


@pytest.mark.slow
def test_resize_to_the_same_size_is_exactly_the_identity_and_flip_the_reversal():
    for size in (1, 2, 13, 224):
        eye = np.eye(size, dtype=np.float32)
        kept = resize_operator(size, size, size, size)
        turned = resize_operator(size, size, size, size, flip=True)
        np.testing.assert_array_equal(kept, eye)
        np.testing.assert_array_equal(turned, eye[::-1])


@pytest.mark.slow
@pytest.mark.parametrize("d4", range(8))
def test_d4_acts_bitwise_exactly_on_images_and_grids(d4):
    rng = np.random.default_rng(d4)
    images = rng.normal(size=(2, 6, 6, 3)).astype(np.float32)
    element = group.Element(np.full(2, d4), np.full((2, 2), 3))
    moved = np.asarray(act_on_image(images, element, patch_size=2, max_side=4))
    expected = np.stack([d4_on_array(d4, x) for x in images])
    np.testing.assert_array_equal(moved[:, :6, :6], expected)
    assert not moved[:, 6:].any() and not moved[:, :, 6:].any()

    grids = rng.normal(size=(2, 3, 5, 4)).astype(np.float32)  # not square
    expected = np.stack([d4_on_array(d4, x) for x in grids])
    element = group.Element(np.full(2, d4), shapes_of(expected))
    moved = act_on_grid(slots_of(grids, 16), shapes_of(grids), element, max_side=5)
    np.testing.assert_array_equal(moved, slots_of(expected, 16))


@pytest.mark.slow
def test_patchify_then_act_is_act_then_patchify():
    """Carrying view 0's patches by rho_g gives view 1's: bitwise, for all pairs."""
    patch, side = 4, 3
    image = np.random.default_rng(0).normal(size=(1, 12, 12, 3)).astype(np.float32)

    def patch_means(view):  # a token that does not see orientation inside its patch
        grid = view.reshape(-1, side, patch, side, patch, 3)
        return np.sort(grid.transpose(0, 1, 3, 2, 4, 5).reshape(-1, side, side, 48))

    def view(d4):
        element = group.Element(np.array([d4]), np.full((1, 2), side))
        moved = act_on_image(image, element, patch_size=patch, max_side=side)
        return element, patch_means(np.asarray(moved))

    views = [view(d4) for d4 in range(8)]
    for source, source_grid in views:
        for destination, destination_grid in views:
            carried = act_on_grid(
                slots_of(source_grid, 9),
                source.grid_shape,
                relative(destination, source),
                max_side=side,
            )
            np.testing.assert_array_equal(carried, slots_of(destination_grid, 9))


@pytest.mark.slow
def test_each_image_has_its_own_element_in_one_compilation():
    grids = np.random.default_rng(0).normal(size=(6, 4, 4, 2)).astype(np.float32)
    tokens, shapes = slots_of(grids, 24), shapes_of(grids)
    act = jax.jit(functools.partial(geometry.act_on_grid, max_side=6))
    alone = jax.jit(functools.partial(geometry.act_on_grid, max_side=6))
    draw = jax.jit(group.Group(base_side=4).sample_pair, static_argnums=1)
    for seed in range(3):
        _, element = jax.device_get(draw(jax.random.key(seed), 6))
        args = (tokens, shapes, element)
        together = np.asarray(act(*args))
        for i in range(6):
            one = jax.tree.map(lambda x, i=i: x[i : i + 1], args)
            np.testing.assert_allclose(together[i], alone(*one)[0], atol=1e-6)
    assert act._cache_size() == 1


def test_flips_and_transposes_commute_with_resizing():
    grids = np.random.default_rng(3).normal(size=(1, 4, 6, 2)).astype(np.float32)
    for d4 in range(8):
        both = group.Element(np.array([d4]), np.array([[5, 3]]))
        together = act_on_grid(slots_of(grids, 24), shapes_of(grids), both, max_side=6)
        turned = np.stack([d4_on_array(d4, x) for x in grids])
        step1 = group.Element(np.array([0]), np.array([[5, 3]]))
        one_by_one = act_on_grid(
            slots_of(turned, 24), shapes_of(turned), step1, max_side=6
        )
        np.testing.assert_allclose(together, one_by_one, atol=5e-6)


@pytest.mark.slow
@pytest.mark.parity
def test_image_action_matches_the_reference(golden):
    data = golden("group_action")
    names = {key.split("/")[0] for key in data.arrays if key.startswith("img")}
    assert names
    longest = max(
        max(data[f"{case}/{part}"].shape[2:]) for case in names for part in "xy"
    )
    for case in sorted(names):
        *grid_shape, turns = data[f"{case}/params"]
        element = release_element(
            rot180=data[f"{case}/rot180"],
            hflip=data[f"{case}/hflip"],
            grid_shape=np.array(grid_shape),
            quarter_turns=turns,
        )
        images = data[f"{case}/x"].transpose(0, 2, 3, 1)
        expected = data[f"{case}/y"].transpose(0, 2, 3, 1)
        h, w = expected.shape[1:3]
        moved = act_on_image(images, element, patch_size=1, max_side=longest)
        assert_close(np.asarray(moved)[:, :h, :w], expected)


@pytest.mark.slow
@pytest.mark.parity
def test_feature_action_matches_the_reference(golden):
    data = golden("group_action")
    names = {key.split("/")[0] for key in data.arrays if key.startswith("feat")}
    assert names
    sides = [
        data[f"{case}/{part}"].shape[2:] for case in names for part in ("f", "out")
    ]
    num_slots, longest = np.prod(sides, axis=1).max(), int(np.max(sides))
    for case in sorted(names):
        w0, h0, k0, w1, h1, k1 = data[f"{case}/params"]
        grids = data[f"{case}/f"].transpose(0, 2, 3, 1)
        expected = data[f"{case}/out"].transpose(0, 2, 3, 1)
        flags = np.zeros(len(grids), bool)
        source = release_element(
            rot180=flags, hflip=flags, grid_shape=np.array([w0, h0]), quarter_turns=k0
        )
        destination = release_element(
            rot180=~flags,
            hflip=~flags,
            grid_shape=np.array([w1, h1]),
            quarter_turns=k1,
        )
        moved = act_on_grid(
            slots_of(grids, num_slots),
            source.grid_shape,
            relative(destination, source),
            max_side=longest,
        )
        assert_close(moved, slots_of(expected, num_slots))


@pytest.mark.parity
def test_views_without_resizing_are_carried_onto_each_other_exactly(golden):
    data = golden("group_action")
    images = data["consistency/x"].transpose(0, 2, 3, 1)
    side = images.shape[1]
    views = []
    for view in (0, 1):
        element = release_element(
            rot180=data["consistency/rot180_0"] ^ bool(view),
            hflip=data["consistency/hflip_0"] ^ bool(view),
            grid_shape=np.array([side, side]),
            quarter_turns=data["consistency/k"][view],
        )
        moved = act_on_image(images, element, patch_size=1, max_side=side)
        recorded = data[f"consistency/view{view}"].transpose(0, 2, 3, 1)
        np.testing.assert_array_equal(moved, recorded)
        views.append((element, recorded))
    (source, grid0), (destination, grid1) = views
    carried = act_on_grid(
        slots_of(grid0, side * side),
        source.grid_shape,
        relative(destination, source),
        max_side=side,
    )
    np.testing.assert_array_equal(carried, slots_of(grid1, side * side))


@pytest.mark.parametrize("kernel", sorted(geometry.KERNELS))
def test_kernels_leave_equal_sizes_alone_and_weights_sum_to_one(kernel):
    same = resize_operator(5, 5, 5, 5, kernel=kernel)
    np.testing.assert_array_equal(same, np.eye(5, dtype=np.float32))
    grown = np.asarray(resize_operator(5, 8, 5, 8, kernel=kernel))
    np.testing.assert_allclose(grown.sum(axis=1), 1.0, atol=1e-6)


def test_bilinear_and_nearest_match_explicit_loops():
    x = np.random.default_rng(0).normal(size=6)
    for num_out in (4, 9):
        linear, nearest = np.zeros(num_out), np.zeros(num_out)
        for o in range(num_out):
            centre = (o + 0.5) * 6 / num_out - 0.5
            left = int(np.floor(centre))
            part = centre - left
            ends = (x[min(max(i, 0), 5)] for i in (left, left + 1))
            linear[o] = (1 - part) * next(ends) + part * next(ends)
            nearest[o] = x[min(max(int(np.floor(centre + 0.5)), 0), 5)]
        for kernel, expected in (("bilinear", linear), ("nearest", nearest)):
            matrix = resize_operator(6, num_out, 6, num_out, kernel=kernel)
            np.testing.assert_allclose(np.asarray(matrix) @ x, expected, atol=1e-6)
