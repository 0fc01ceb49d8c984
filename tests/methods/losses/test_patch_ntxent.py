"""patch NT-Xent: hand values, the reference, both negative sets, blocks, sharding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.support import assert_close
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ser_jax.geometry import action as geometry
from ser_jax.geometry import group
from ser_jax.methods.losses.patch_ntxent import patch_ntxent
from ser_jax.models.normalize import l2_normalize

compiled_loss = jax.jit(patch_ntxent, static_argnames=("temperature", "block_tokens"))
release_element = jax.jit(group.release_element)


def random_case(seed, b=3, n=7, m=5, d=4):
    rng = np.random.default_rng(seed)
    student, target, same_view = (
        rng.normal(size=shape).astype(np.float32)
        for shape in ((b, n, d), (b, n, d), (b, m, d))
    )
    valid = np.arange(n) < rng.integers(2, n + 1, size=(b, 1))
    same_view_valid = np.arange(m) < rng.integers(1, m + 1, size=(b, 1))
    return student, target, valid, same_view, same_view_valid


def loop_reference(student, target, valid, temperature, same_view, same_view_valid):
    """The paper's formula, token by token, in float64."""

    def unit(x):
        return x.astype(np.float64) / np.linalg.norm(x.astype(np.float64))

    b, n, _ = student.shape
    loss = np.zeros((b, n))
    for i in range(b):
        for j in range(n):
            if not valid[i, j]:
                continue
            z = unit(student[i, j])
            positive = np.exp(z @ unit(target[i, j]) / temperature)
            negatives = 0.0
            for other in range(b):
                if other == i:
                    continue
                for k in range(n):
                    if valid[other, k]:
                        negatives += np.exp(z @ unit(target[other, k]) / temperature)
                if same_view is None:
                    continue
                for k in range(same_view.shape[1]):
                    if same_view_valid[other, k]:
                        key = unit(same_view[other, k])
                        negatives += np.exp(z @ key / temperature)
            loss[i, j] = -np.log(positive / (positive + negatives))
    return loss


@pytest.mark.parametrize("both_views", [False, True])
@pytest.mark.parametrize("block_tokens", [1, 6, 1024])
def test_matches_an_explicit_loop(both_views, block_tokens):
    student, target, valid, same_view, same_view_valid = random_case(0)
    extra = (same_view, same_view_valid) if both_views else (None, None)
    loss = compiled_loss(
        student,
        target,
        valid,
        temperature=0.3,
        same_view=extra[0],
        same_view_valid=extra[1],
        block_tokens=block_tokens,
    )
    expected = loop_reference(student, target, valid, 0.3, *extra)
    np.testing.assert_allclose(loss, expected, rtol=2e-5, atol=1e-6)
    assert not np.asarray(loss)[~valid].any()


def dense_mean_loss(student, target, valid, same_view, same_view_valid):
    """The same loss with all logits at once, for JAX to differentiate."""
    b, n, d = student.shape
    queries = l2_normalize(student).reshape(b * n, d) / 0.3
    keys = jnp.concatenate([l2_normalize(target), l2_normalize(same_view)], axis=1)
    key_valid = jnp.concatenate([valid, same_view_valid], axis=1).reshape(-1)
    image = jnp.repeat(jnp.arange(b), n)
    key_image = jnp.repeat(jnp.arange(b), keys.shape[1])
    logits = queries @ keys.reshape(-1, d).T
    mask = (image[:, None] != key_image[None]) & key_valid[None]
    positive = jnp.sum(queries * l2_normalize(target).reshape(b * n, d), axis=-1)
    rows = jnp.concatenate(
        [positive[:, None], jnp.where(mask, logits, -jnp.inf)], axis=1
    )
    per_token = jax.nn.logsumexp(rows, axis=1) - positive
    return jnp.sum(per_token * valid.reshape(-1)) / valid.sum()


@pytest.mark.slow
@pytest.mark.parametrize("block_tokens", [1, 6, 1024])
def test_gradients_match_automatic_differentiation_of_the_dense_form(block_tokens):
    student, target, valid, same_view, same_view_valid = random_case(1)

    def blockwise(student, target, same_view):
        loss = patch_ntxent(
            student,
            target,
            valid,
            temperature=0.3,
            same_view=same_view,
            same_view_valid=same_view_valid,
            block_tokens=block_tokens,
        )
        return loss.sum() / valid.sum()

    def dense(student, target, same_view):
        return dense_mean_loss(student, target, valid, same_view, same_view_valid)

    actual, expected = (
        jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(student, target, same_view)
        for loss in (blockwise, dense)
    )
    for a, e in zip(actual, expected, strict=True):
        assert_close(a, e, rel=1e-5, abs=1e-7)


def test_a_constant_target_costs_no_second_pass():
    """With the keys stopped, the backward pass holds no product of its own."""
    student, target, valid, *_ = random_case(2)

    def loss(student, target):
        return patch_ntxent(student, target, valid, temperature=0.3).sum()

    def num_products(fun):
        return str(jax.make_jaxpr(fun)(student, target)).count("dot_general")

    constant = num_products(
        jax.grad(lambda s, t: loss(s, jax.lax.stop_gradient(t)), argnums=0)
    )
    both = num_products(jax.grad(loss, argnums=(0, 1)))
    assert (constant, both) == (2, 4)


@pytest.mark.slow
def test_one_image_has_no_negatives_and_zero_loss():
    student, target, valid, *_ = random_case(3, b=1)
    loss, grad = jax.jit(
        jax.value_and_grad(
            lambda s: patch_ntxent(s, target, valid, temperature=0.3).sum()
        )
    )(student)
    np.testing.assert_allclose(loss, 0.0, atol=1e-6)
    np.testing.assert_allclose(grad, 0.0, atol=1e-6)


@pytest.mark.slow
def test_finite_at_zero_vectors_and_low_temperature():
    student, target, valid, *_ = random_case(4)
    student[0, 0], target[1, 1] = 0.0, 0.0

    def loss(s, t):
        return patch_ntxent(s, t, valid, temperature=1e-3).sum()

    value, grads = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(student, target)
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in grads)


def test_order_of_images_does_not_matter():
    student, target, valid, *_ = random_case(5)
    loss = compiled_loss(student, target, valid, temperature=0.3)
    order = np.array([2, 0, 1])
    shuffled = compiled_loss(
        student[order], target[order], valid[order], temperature=0.3
    )
    np.testing.assert_allclose(shuffled, np.asarray(loss)[order], rtol=1e-5)


def test_one_device_equals_eight():
    student, target, valid, same_view, same_view_valid = random_case(6, b=8)

    def loss(student, target, valid, same_view, same_view_valid):
        per_token = patch_ntxent(
            student,
            target,
            valid,
            temperature=0.3,
            same_view=same_view,
            same_view_valid=same_view_valid,
            block_tokens=16,
        )
        return per_token.sum() / valid.sum()

    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    args = (student, target, valid, same_view, same_view_valid)
    one = step(*args)
    mesh = Mesh(np.array(jax.devices()), ("data",))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    eight = step(*(jax.device_put(x, sharding) for x in args))
    np.testing.assert_allclose(one[0], eight[0], rtol=1e-6)
    for a, b in zip(one[1], eight[1], strict=True):
        assert_close(a, b, rel=1e-5, abs=1e-7)


def test_bad_input_is_refused():
    student, target, valid, same_view, _ = random_case(7)
    with pytest.raises(ValueError, match="student and target"):
        patch_ntxent(student, target[:, :-1], valid, temperature=0.3)
    with pytest.raises(ValueError, match="valid must be"):
        patch_ntxent(student, target, valid[:, :-1], temperature=0.3)
    with pytest.raises(ValueError, match="temperature"):
        patch_ntxent(student, target, valid, temperature=0.0)
    with pytest.raises(ValueError, match="same_view_valid"):
        patch_ntxent(student, target, valid, temperature=0.3, same_view=same_view)


def to_slots(grid: np.ndarray, num_slots: int) -> np.ndarray:
    """`[b, d, h, w]` maps as `[b, n, d]` slots."""
    b, d, h, w = grid.shape
    flat = grid.transpose(0, 2, 3, 1).reshape(b, h * w, d)
    return np.pad(flat, [(0, 0), (0, num_slots - h * w), (0, 0)])


def recorded_views(params) -> list[group.Element]:
    """Elements of the two views of one device's recorded case."""
    num_images, *shapes = (int(x) for x in params)
    flags = np.zeros(num_images, bool)
    return [
        release_element(
            rot180=flags ^ bool(view),
            hflip=flags ^ bool(view),
            grid_shape=np.array(shapes[3 * view : 3 * view + 2]),
            quarter_turns=shapes[3 * view + 2],
        )
        for view in (0, 1)
    ]


def symmetric_loss(students, targets, elements, max_side, temperature):
    """Half the sum of both directions, negatives from the opposite view only."""
    total = 0.0
    for source, destination in ((0, 1), (1, 0)):
        aligned = geometry.act_on_grid(
            targets[source],
            elements[source].grid_shape,
            group.relative(elements[destination], elements[source]),
            max_side=max_side,
        )
        valid = geometry.slot_cells(elements[destination].grid_shape, aligned.shape[1])[
            2
        ]
        loss = patch_ntxent(
            students[destination], aligned, valid, temperature=temperature
        )
        total += 0.5 * loss.sum() / valid.sum()
    return total


@pytest.mark.slow
@pytest.mark.parity
def test_matches_the_reference_value_and_gradient(golden):
    data = golden("equiv_loss")
    cases = sorted({k.split("/")[0] for k in data.arrays if k.startswith("case")})
    assert cases
    for case in cases:
        check_recorded(data, [case], data[f"{case}/temperature"], data[f"{case}/loss"])


@pytest.mark.slow
@pytest.mark.parity
def test_matches_the_reference_of_two_devices(golden):
    data = golden("equiv_loss")
    prefixes = ["two_devices/device0", "two_devices/device1"]
    check_recorded(
        data, prefixes, data["two_devices/temperature"], data["two_devices/loss"]
    )


def check_recorded(data, prefixes, temperature, expected):
    maps = [f"{role}{view}" for role in ("student", "teacher") for view in (0, 1)]
    num_slots = max(
        int(np.prod(data[f"{prefix}/{name}"].shape[2:]))
        for prefix in prefixes
        for name in maps
    )
    slots = [
        np.concatenate([to_slots(data[f"{p}/{name}"], num_slots) for p in prefixes])
        for name in maps
    ]
    per_device = [recorded_views(data[f"{prefix}/params"]) for prefix in prefixes]
    elements = [
        jax.tree.map(lambda *x: np.concatenate(x), *(pair[view] for pair in per_device))
        for view in (0, 1)
    ]

    max_side = max(int(e.grid_shape.max()) for e in elements)

    def loss(*slots):
        students, targets = slots[:2], slots[2:]
        return symmetric_loss(students, targets, elements, max_side, float(temperature))

    value, grads = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3)))(*slots)
    if len(slots[0]) > 1:
        np.testing.assert_allclose(value, expected, rtol=1e-5)
    else:
        np.testing.assert_allclose(value, expected, atol=1e-6)
    for name, grad in zip(maps, grads, strict=True):
        recorded = np.concatenate(
            [to_slots(data[f"{p}/grad_{name}"], num_slots) for p in prefixes]
        )
        assert_close(grad, recorded)
