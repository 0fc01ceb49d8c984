"""Self-attention on packed queries, keys and values, in the forms that devices run."""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

IMPLEMENTATIONS = ("auto", "xla", "fused", "cudnn")
_MASKED = -1e30  # a finite logit, so that a row without any token gives no NaN
_LANES = 128  # of a TPU's vector register
ALIGNED = 8  # tokens: its rows, which images of such sizes do not share


def attend(
    packed: jax.Array,
    num_heads: int,
    lengths: jax.Array | None = None,
    implementation: str = "xla",
) -> jax.Array:
    """Multi-head self-attention; the softmax runs in float32.

    Args:
        packed: q, then k, then v of all heads, `[b, n, 3 * d]`.
        num_heads: Heads; a divisor of d.
        lengths: How many tokens of an image, its first, are attended to, `[b]`, int32;
            None for all. What comes of the others means nothing.
        implementation: "xla", or "auto" for the same. "cudnn": NVIDIA's, on GPUs, in
            bfloat16 or float16. ("fused" is `fused`, which takes other arguments.)

    Returns:
        `[b, n, d]`, the dtype of `packed`.
    """
    if implementation == "cudnn":
        return _cudnn(packed, num_heads, lengths)
    return _xla(packed, num_heads, lengths)


def _xla(packed, num_heads, lengths):
    b, n, d = packed.shape[0], packed.shape[1], packed.shape[2] // 3
    heads = packed.reshape(b, n, 3, num_heads, d // num_heads)
    # Heads before tokens in all products: compilers then copy less.
    q, k, v = jnp.moveaxis(heads, (2, 3), (0, 2))  # [b, heads, n, head_dim]
    logits = jnp.einsum("bhqd,bhkd->bhqk", q, k, preferred_element_type=jnp.float32)
    logits = logits * (d // num_heads) ** -0.5
    if lengths is not None:
        there = jnp.arange(n)[None, None, None] < lengths[:, None, None, None]
        logits = jnp.where(there, logits, _MASKED)
    # fp32: softmax. What it is divided by goes to the product, which is smaller.
    most = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    weights = jnp.exp(logits - most)
    mixed = jnp.einsum(
        "bhqk,bhkd->bhqd",
        weights.astype(packed.dtype),
        v,
        preferred_element_type=jnp.float32,
    )
    mixed = mixed / jnp.sum(weights, axis=-1, keepdims=True)
    return jnp.moveaxis(mixed.astype(packed.dtype), 1, 2).reshape(b, n, d)


def _cudnn(packed, num_heads, lengths):
    b, n, d = packed.shape[0], packed.shape[1], packed.shape[2] // 3
    if n % 2:  # its gradient wants an even number of tokens
        packed = jnp.pad(packed, [(0, 0), (0, 1), (0, 0)])
        lengths = jnp.full(b, n, jnp.int32) if lengths is None else lengths
    qkv = packed.reshape(b, n + n % 2, 3, num_heads, d // num_heads)
    out = jax.nn.dot_product_attention(
        *(qkv[:, :, i] for i in range(3)),
        query_seq_lengths=lengths,
        key_value_seq_lengths=lengths,
        implementation="cudnn",
    )
    return out[:, :n].reshape(b, n, d)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def fused(
    num_heads: int,
    sizes: tuple[tuple[int, int], ...],
    packed: jax.Array,
    lengths: tuple[jax.Array, ...],
) -> jax.Array:
    """`attend` in one kernel for all heads of an image, of images of several sizes.

    Logits never reach the memory. For TPUs; interpreted elsewhere. It is one device's
    program: on a mesh it runs in `by_device`.

    Args:
        num_heads: Heads; a divisor of d.
        sizes: (images b, tokens n of each) of every part; n a multiple of `ALIGNED`.
        packed: q, then k, then v of all parts' tokens, `[t, 3 * d]`, t at least the sum
            of b * n.
        lengths: How many tokens of an image are attended to, its first, `[b]`, int32,
            of each part.

    Returns:
        `[t, d]`, zero after the last part.
    """
    width = packed.shape[1] // 3
    return _call(_forward_kernel, num_heads, 2, width, sizes, lengths, packed)


def _fused_forward(num_heads, sizes, packed, lengths):
    return fused(num_heads, sizes, packed, lengths), (packed, lengths)


def _fused_backward(num_heads, sizes, residuals, g):
    packed, lengths = residuals
    width = packed.shape[1]
    grad = _call(_backward_kernel, num_heads, 5, width, sizes, lengths, packed, g)
    return grad, None


fused.defvjp(_fused_forward, _fused_backward)


def _call(kernel, num_heads, num_products, out_width, sizes, lengths, *arrays):
    """A kernel on every image of every part; interpreted where there is no TPU."""
    first, total = 0, arrays[0].shape[0]
    out = jnp.zeros((0, out_width))
    for (b, n), length in zip(sizes, lengths, strict=True):
        end = first + b * n
        # The first part's result has room for the others', which are written into it.
        num_rows = b * n if first else total
        skipped, rest = divmod(first, n)
        inputs = arrays
        if rest:  # images are read where they lie, if that is a multiple of n
            skipped, inputs = 0, tuple(x[first:end] for x in arrays)
        shape = (num_rows, out_width)
        on_device = functools.partial(
            _call_part, kernel, num_heads, num_products, shape, n, skipped
        )
        part = jax.lax.platform_dependent(
            length,
            *inputs,
            tpu=functools.partial(on_device, False),
            default=functools.partial(on_device, True),
        )
        out = jax.lax.dynamic_update_slice(out, part, (first, 0)) if first else part
        first = end
    if first < total:
        tail = jnp.zeros((total - first, out_width), out.dtype)
        out = jax.lax.dynamic_update_slice(out, tail, (first, 0))
    return out


def _call_part(
    kernel, num_heads, num_products, out_shape, n, skipped, interpret, lengths, *arrays
):
    """On the images of n tokens that come after so many of that size."""
    b, dtype = lengths.shape[0], arrays[0].dtype
    widths = [x.shape[1] for x in arrays]
    head_dim = widths[0] // 3 // num_heads
    tokens = pl.cdiv(n, _LANES) * _LANES
    per_head = tokens * tokens * pl.cdiv(head_dim, _LANES) * _LANES
    return pl.pallas_call(
        functools.partial(kernel, num_heads),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=(b,),
            in_specs=[
                pl.BlockSpec((n, width), lambda i, _: (i + skipped, 0))
                for width in widths
            ],
            out_specs=pl.BlockSpec((n, out_shape[1]), lambda i, _: (i, 0)),
        ),
        out_shape=jax.ShapeDtypeStruct(out_shape, dtype),
        cost_estimate=pl.CostEstimate(
            flops=2 * b * num_heads * num_products * per_head,
            transcendentals=b * num_heads * tokens**2,
            bytes_accessed=b * n * (sum(widths) + out_shape[1]) * dtype.itemsize,
        ),
        interpret=interpret,
    )(lengths, *arrays)


def _heads(num_heads, packed):
    """q, k, v `[n, head_dim]` of each head, and where they stand in `packed`."""
    width = packed.shape[1] // 3
    size = width // num_heads
    for head in range(num_heads):
        at = [
            slice(part * width + head * size, part * width + (head + 1) * size)
            for part in range(3)
        ]
        yield at, [packed[:, columns] for columns in at]


def _weights(q, k, length):
    """Softmax of the logits over the first `length` keys, float32, `[n, n]`."""
    logits = _product(q, k, 1, 1) * q.shape[1] ** -0.5
    key = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 1)
    logits = jnp.where(key < length, logits, _MASKED)
    weights = jnp.exp(logits - jnp.max(logits, axis=1, keepdims=True))
    return weights, jnp.sum(weights, axis=1, keepdims=True)


def _product(a, b, a_axis, b_axis):
    """Matrix product over one axis of each, in float32."""
    axes = (((a_axis,), (b_axis,)), ((), ()))
    return jax.lax.dot_general(a, b, axes, preferred_element_type=jnp.float32)


def _forward_kernel(num_heads, lengths, packed, out):
    length = lengths[pl.program_id(0)]
    for (columns, *_), (q, k, v) in _heads(num_heads, packed):
        weights, total = _weights(q, k, length)
        mixed = _product(weights.astype(v.dtype), v, 1, 0) / total
        out[:, columns] = mixed.astype(out.dtype)


def _backward_kernel(num_heads, lengths, packed, g, grad):
    length = lengths[pl.program_id(0)]
    for columns, (q, k, v) in _heads(num_heads, packed):
        weights, total = _weights(q, k, length)
        weights = weights / total
        g_out = g[:, columns[0]]
        g_weights = _product(g_out, v, 1, 1)
        mean = jnp.sum(g_weights * weights, axis=1, keepdims=True)
        g_logits = weights * (g_weights - mean) * q.shape[1] ** -0.5
        g_logits = g_logits.astype(q.dtype)
        parts = (
            _product(g_logits, k, 1, 0),
            _product(g_logits, q, 0, 0),
            _product(weights.astype(q.dtype), g_out, 0, 0),
        )
        for at, part in zip(columns, parts, strict=True):
            grad[:, at] = part.astype(grad.dtype)
