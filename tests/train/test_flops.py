"""Counting FLOPs in a jaxpr: each structure by hand, and against XLA's own count."""

import collections

import jax
import jax.numpy as jnp
import pytest

from ser_jax.models.variants import make_vit
from ser_jax.train.flops import count_flops, flops_by_scope, jaxpr_flops


def shape(*dims):
    return jax.ShapeDtypeStruct(dims, jnp.float32)


A, B = shape(3, 5), shape(5, 7)
PRODUCT = 2 * 3 * 5 * 7


def test_matrix_products_batched_and_plain():
    assert count_flops(jnp.dot, A, B) == PRODUCT
    batched = count_flops(
        lambda x, y: jnp.einsum("bij,bjk->bik", x, y), shape(4, 3, 5), shape(4, 5, 7)
    )
    assert batched == 4 * PRODUCT


@pytest.mark.parametrize("groups", [1, 2])
def test_convolution(groups):
    def convolve(image, kernel):
        return jax.lax.conv_general_dilated(
            image,
            kernel,
            window_strides=(2, 2),
            padding="VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    image, kernel = shape(2, 9, 9, 4), shape(3, 3, 4 // groups, 6)
    assert count_flops(convolve, image, kernel) == 2 * (2 * 4 * 4 * 6) * 9 * 4 // groups


def test_loops_count_every_turn():
    def scanned(x, y):
        return jax.lax.scan(lambda c, _: (c + x @ y, None), jnp.zeros((3, 7)), length=6)

    assert count_flops(scanned, A, B) == 6 * PRODUCT
    nested = jax.jit(lambda x, y: jax.lax.map(lambda _: scanned(x, y), jnp.arange(4)))
    assert count_flops(nested, A, B) == 24 * PRODUCT


def test_a_while_loop_with_products_is_refused():
    def turning(body):
        def function(x):
            return jax.lax.while_loop(lambda c: c.sum() < 9, body, x)

        return function

    assert count_flops(turning(lambda c: c + 1), shape(4, 4)) == 0
    with pytest.raises(ValueError, match="lax.scan"):
        count_flops(turning(lambda c: c @ c), shape(4, 4))


def test_of_a_cond_the_dearest_branch_counts():
    def either(flag, x, y):
        return jax.lax.cond(flag, lambda: x @ y, lambda: x @ (y @ (y.T @ y)))

    flag = jax.ShapeDtypeStruct((), jnp.bool_)
    expected = PRODUCT + 2 * 7 * 5 * 7 + 2 * 5 * 7 * 7
    assert count_flops(either, flag, A, B) == expected


def test_custom_derivatives_and_recomputation():
    @jax.custom_vjp
    def product(x, y):
        return x @ y

    product.defvjp(lambda x, y: (x @ y, (x, y)), lambda res, g: (g @ res[1].T, None))
    assert count_flops(product, A, B) == PRODUCT
    grad = jax.grad(lambda x, y: product(x, y).sum())
    assert count_flops(grad, A, B) == PRODUCT  # the forward product is dead

    def twice(x, y):
        return jnp.sin(jnp.sin(x @ y) @ y.T).sum()

    plain = count_flops(jax.grad(twice), A, B)
    assert plain == 4 * PRODUCT
    assert count_flops(jax.grad(jax.checkpoint(twice)), A, B) == plain


def test_dead_work_and_stopped_gradients_are_free():
    def with_dead_product(x, y):
        wasted = x @ y @ y.T
        return x @ y, (wasted, 1)[1]

    assert count_flops(jax.jit(with_dead_product), A, B) == PRODUCT

    def contrast(x, y):
        keys = jax.lax.stop_gradient(jnp.sin(y))
        return jnp.sin(x @ keys).sum()

    # Logits and the queries' gradient; a gradient of the keys would be a third product.
    step = jax.value_and_grad(contrast, argnums=(0, 1))
    assert count_flops(step, A, B) == 2 * PRODUCT
    free = jax.value_and_grad(lambda x, y: jnp.sin(x @ y).sum(), argnums=(0, 1))
    assert count_flops(free, A, B) == 3 * PRODUCT


def test_two_layers_by_scope_and_pass():
    def loss(weights, x):
        with jax.named_scope("first"):
            x = jnp.sin(x @ weights[0])
        with jax.named_scope("second"):
            return jax.lax.scan(lambda y, w: (jnp.sin(y @ w), None), x, weights[1])[
                0
            ].sum()

    weights, x = (shape(5, 7), shape(4, 7, 7)), shape(3, 5)
    step = jax.jit(jax.value_and_grad(loss))
    one, turn = 2 * 3 * 5 * 7, 2 * 3 * 7 * 7
    passes = {
        "jvp(first)": one,
        "transpose(jvp(first))": one,  # of the weights alone: x is given
        "jvp(second)": 4 * turn,
        "transpose(jvp(second))": 8 * turn,
    }
    assert by_scope(flops_by_scope(step, weights, x)) == passes
    assert count_flops(step, weights, x) == sum(passes.values())
    once = jaxpr_flops(jax.make_jaxpr(step)(weights, x), loops_once=True)
    assert by_scope(once) == passes | {
        "jvp(second)": turn,
        "transpose(jvp(second))": 2 * turn,
    }


def by_scope(flops):
    """Sums by the name that the test gave."""
    sums = collections.Counter()
    for scope, count in flops.items():
        (name,) = (
            part for part in scope.split("/") if "first" in part or "sec" in part
        )
        sums[name] += count
    return sums


def vit_gradient(**attributes):
    vit = make_vit("S/16", image_size=224, depth=4, **attributes)

    def loss(params, images):
        return vit.apply({"params": params}, images).cls.sum()

    images = shape(1, 224, 224, 3)
    params = jax.eval_shape(vit.init, jax.random.key(0), images)["params"]
    return jax.value_and_grad(loss), params, images


@pytest.mark.slow
def test_agrees_with_xla_on_an_unrolled_vit_and_does_not_mind_a_scan():
    function, *args = vit_gradient(scan=False)
    ours = count_flops(function, *args)
    xla = jax.jit(function).lower(*args).cost_analysis()["flops"]
    # XLA adds elementwise work: a little more, never less.
    assert 1.0 < xla / ours < 1.02
    scanned = count_flops(*vit_gradient(scan=True))
    assert scanned == ours
