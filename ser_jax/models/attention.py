"""Self-attention on packed queries, keys and values, in the forms that devices run."""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ser_jax.models.placement import on_own_rows

IMPLEMENTATIONS = ("auto", "xla", "fused", "cudnn")
_MASKED = -1e30  # a finite logit, so that a row without any token gives no NaN
_LANES, _SUBLANES = 128, 8  # a TPU's vector register


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
        implementation: "xla", or "auto" for the same. "fused": one kernel for all heads
            of an image, whose logits never reach the memory (TPU; interpreted
            elsewhere). "cudnn": NVIDIA's, on GPUs, in bfloat16 or float16.

    Returns:
        `[b, n, d]`, the dtype of `packed`.
    """
    if implementation == "fused":
        if lengths is None:
            lengths = jnp.full(packed.shape[0], packed.shape[1], jnp.int32)
        return _fused(num_heads, packed, lengths)
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
    weights = jax.nn.softmax(logits).astype(packed.dtype)  # fp32: softmax
    mixed = jnp.einsum("bhqk,bhkd->bhqd", weights, v)
    return jnp.moveaxis(mixed, 1, 2).reshape(b, n, d)


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


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _fused(num_heads, packed, lengths):
    width = packed.shape[2] // 3
    return _call(_forward_kernel, num_heads, 2, width, lengths, packed)


def _fused_forward(num_heads, packed, lengths):
    return _fused(num_heads, packed, lengths), (packed, lengths)


def _fused_backward(num_heads, residuals, g):
    packed, lengths = residuals
    grad = _call(_backward_kernel, num_heads, 5, packed.shape[2], lengths, packed, g)
    return grad, None


_fused.defvjp(_fused_forward, _fused_backward)


def _call(kernel, num_heads, num_products, out_width, lengths, *arrays):
    """A kernel on every image, on the device that has it; interpreted if no TPU."""
    n, dtype = arrays[0].shape[1], arrays[0].dtype

    def on_device(interpret, lengths, *arrays):
        b = arrays[0].shape[0]

        def block(width):
            return pl.BlockSpec((1, n, width), lambda i, _: (i, 0, 0))

        widths = [x.shape[2] for x in arrays]
        head_dim = arrays[0].shape[2] // 3 // num_heads
        tokens = pl.cdiv(n, _LANES) * _LANES
        per_head = tokens * tokens * pl.cdiv(head_dim, _LANES) * _LANES
        return pl.pallas_call(
            functools.partial(kernel, num_heads),
            grid_spec=pltpu.PrefetchScalarGridSpec(
                num_scalar_prefetch=1,
                grid=(b,),
                in_specs=[block(width) for width in widths],
                out_specs=block(out_width),
            ),
            out_shape=jax.ShapeDtypeStruct((b, n, out_width), dtype),
            cost_estimate=pl.CostEstimate(
                flops=2 * b * num_heads * num_products * per_head,
                transcendentals=b * num_heads * tokens**2,
                bytes_accessed=b * n * (sum(widths) + out_width) * dtype.itemsize,
            ),
            interpret=interpret,
        )(lengths, *arrays)

    def anywhere(*arrays):
        return jax.lax.platform_dependent(
            *arrays,
            tpu=functools.partial(on_device, False),
            default=functools.partial(on_device, True),
        )

    return on_own_rows(anywhere, lengths, *arrays)


def _heads(num_heads, packed):
    """q, k, v `[n, head_dim]` of each head, and where they stand in `packed`."""
    width = packed.shape[2] // 3
    size = width // num_heads
    for head in range(num_heads):
        at = [
            slice(part * width + head * size, part * width + (head + 1) * size)
            for part in range(3)
        ]
        yield at, [packed[0, :, columns] for columns in at]


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
        out[0, :, columns] = mixed.astype(out.dtype)


def _backward_kernel(num_heads, lengths, packed, g, grad):
    length = lengths[pl.program_id(0)]
    for columns, (q, k, v) in _heads(num_heads, packed):
        weights, total = _weights(q, k, length)
        weights = weights / total
        g_out = g[0, :, columns[0]]
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
            grad[0, :, at] = part.astype(grad.dtype)
