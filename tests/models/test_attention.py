"""The forms of attention against each other, in value and gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.support import assert_close

from ser_jax.models.attention import ALIGNED, attend, fused

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


def attended(packed, lengths, implementation):
    """`attend`, or the kernel on images of this one size."""
    b, n, width = packed.shape
    if implementation != "fused":
        return attend(packed, HEADS, lengths, implementation)
    lengths = jnp.full(b, n, jnp.int32) if lengths is None else lengths
    wide = jnp.pad(packed, [(0, 0), (0, -n % ALIGNED), (0, 0)])
    sizes = (wide.shape[:2],)
    out = fused(HEADS, sizes, wide.reshape(-1, width), (lengths,))
    return out.reshape(*sizes[0], -1)[:, :n]


@pytest.mark.parametrize("implementation", ["xla", "fused"])
@pytest.mark.parametrize("lengths", [None, (21, 13, 1)])
def test_value(implementation, lengths):
    packed, _ = packed_and_cotangent(3, 21)
    given = None if lengths is None else jnp.array(lengths)
    expected = by_hand(packed, lengths or (21,) * 3)
    out = attended(packed, given, implementation)
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
        out, pull = jax.vjp(lambda x: attended(x, lengths, implementation), packed)
        return np.asarray(pull(g)[0], np.float32), out.dtype

    (plain, _), (fused, out_dtype) = grad("xla"), grad("fused")
    assert out_dtype == dtype and np.any(plain)
    assert_close(fused, plain, 1e-5 if dtype == jnp.float32 else 2e-2, 1e-6)


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
