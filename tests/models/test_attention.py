"""The forms of attention against each other, in value and gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.support import assert_close

from ser_jax.models.attention import attend
from ser_jax.train.sharding import batch_sharded, make_mesh

HEADS, WIDTH = 4, 32


def packed_and_cotangent(b, n, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    packed = jnp.asarray(rng.normal(size=(b, n, 3 * WIDTH)), dtype)
    return packed, jnp.asarray(rng.normal(size=(b, n, WIDTH)), dtype)


def by_hand(packed, lengths):
    """Head by head and image by image, in float64; NaN past an image's length."""
    packed = np.asarray(packed, np.float64)
    out = np.full((*packed.shape[:2], WIDTH), np.nan)
    size = WIDTH // HEADS
    for i, length in enumerate(lengths):
        for h in range(HEADS):
            at = slice(h * size, (h + 1) * size)
            q, k, v = (
                packed[i, :length, p * WIDTH : (p + 1) * WIDTH][:, at] for p in range(3)
            )
            weights = np.exp(q @ k.T / np.sqrt(size))
            out[i, :length, at] = weights / weights.sum(1, keepdims=True) @ v
    return out


@pytest.mark.parametrize("implementation", ["xla", "fused"])
@pytest.mark.parametrize("lengths", [None, (21, 13, 1)])
def test_value(implementation, lengths):
    packed, _ = packed_and_cotangent(3, 21)
    given = None if lengths is None else jnp.array(lengths)
    expected = by_hand(packed, lengths or (21,) * 3)
    out = attend(packed, HEADS, given, implementation)
    there = ~np.isnan(expected)
    assert_close(out[there], expected[there])
    assert np.all(np.isfinite(out))


@pytest.mark.parametrize("lengths", [None, (21, 13, 1)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_kernels_gradient_is_the_plain_ones(lengths, dtype):
    packed, g = packed_and_cotangent(3, 21, dtype)
    if lengths is not None:  # what comes of other tokens goes nowhere
        lengths = jnp.array(lengths)
        there = jnp.arange(21)[None] < lengths[:, None]
        g = jnp.where(there[..., None], g, 0)

    def grad(implementation):
        out, pull = jax.vjp(lambda x: attend(x, HEADS, lengths, implementation), packed)
        return np.asarray(pull(g)[0], np.float32), out.dtype

    (plain, _), (fused, out_dtype) = grad("xla"), grad("fused")
    assert out_dtype == dtype and np.any(plain)
    assert_close(fused, plain, 1e-5 if dtype == jnp.float32 else 2e-2, 1e-6)


@pytest.mark.parametrize("b", [8, 11])
def test_every_device_runs_the_kernel_on_its_own_rows(b):
    """Also where the devices do not divide the rows, as of b2."""
    packed, _ = packed_and_cotangent(b, 5)
    lengths = jnp.arange(b, dtype=jnp.int32) % 5 + 1
    alone = attend(packed, HEADS, lengths, "fused")
    mesh = make_mesh()
    rows = batch_sharded(mesh) if b % mesh.size == 0 else None
    with jax.set_mesh(mesh):
        lowered = jax.jit(
            lambda x, n: attend(x, HEADS, n, "fused"), in_shardings=rows
        ).lower(packed, lengths)
    assert "manual" in lowered.as_text()
    assert_close(lowered.compile()(packed, lengths), alone, 1e-6)


@pytest.mark.parametrize("n", [6, 7])
def test_cudnns_form_is_the_plain_one(n, monkeypatch):
    """Against the plain form in cuDNN's place: no GPU is here."""
    plain = jax.nn.dot_product_attention
    seen = []

    def stand_in(q, k, v, *, implementation, **lengths):
        assert implementation == "cudnn"
        seen.append(q.shape)
        return plain(q, k, v, **lengths)

    monkeypatch.setattr(jax.nn, "dot_product_attention", stand_in)
    packed, _ = packed_and_cotangent(3, n)
    for lengths in (None, jnp.array([n, 3, 1])):
        out = attend(packed, HEADS, lengths, "cudnn")
        expected = by_hand(packed, (n,) * 3 if lengths is None else lengths.tolist())
        there = ~np.isnan(expected)
        assert out.shape == (3, n, WIDTH)
        assert_close(out[there], expected[there])
    assert all(shape[1] % 2 == 0 for shape in seen)  # its gradient wants that
