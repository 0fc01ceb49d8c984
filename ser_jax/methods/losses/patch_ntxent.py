"""NT-Xent between the tokens of two aligned views, in memory linear in tokens."""

import functools
import math

import jax
import jax.numpy as jnp
from jax.custom_derivatives import CustomVJPPrimal

from ser_jax.models.normalize import l2_normalize
from ser_jax.models.placement import by_rows, everywhere, num_devices

_EMPTY = -1e30  # log of "nothing to sum", finite so that gradients stay finite


def _chunked(x: jax.Array, block_tokens: int) -> jax.Array:
    """Cuts rows `[rows, ...]` into `[chunks, devices, t, ...]`, padded.

    Every device has the same share of each chunk, and all of it at hand.
    """
    rows, *rest = x.shape
    devices = num_devices()
    num_chunks = -(-rows // (block_tokens * devices))
    t = -(-rows // (num_chunks * devices))
    x = jnp.pad(x, [(0, t * num_chunks * devices - rows)] + [(0, 0)] * len(rest))
    x = by_rows(x.reshape(devices, num_chunks, t, *rest))
    return jnp.moveaxis(x, 1, 0)


def _unchunked(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Undoes `_chunked`, to `[*shape, ...]`."""
    rest = x.shape[3:]
    rows = jnp.moveaxis(x, 0, 1).reshape(-1, *rest)[: math.prod(shape)]
    return rows.reshape(*shape, *rest)


def _chunks(
    block_tokens: int, images: jax.Array, *arrays: jax.Array
) -> tuple[jax.Array, ...]:
    """The image that each query is of, and arrays `[b, n, ...]`, in chunks."""
    b, n = arrays[0].shape[:2]
    flat = [x.reshape(b * n, *x.shape[2:]) for x in arrays]
    return tuple(_chunked(x, block_tokens) for x in (jnp.repeat(images, n), *flat))


def _block_logits(
    image: jax.Array, q: jax.Array, keys: jax.Array, valid: jax.Array
) -> jax.Array:
    """Logits of one chunk of queries against the valid keys of all other images."""
    # image [p, t], q [p, t, d], keys [a, m, d], valid [a, m] -> [p, t, a, m]
    logits = jnp.einsum("ptd,amd->ptam", q, keys)
    other_image = image[..., None] != jnp.arange(keys.shape[0])[None, None]
    mask = other_image[..., None] & valid[None, None]
    return jnp.where(mask, logits, _EMPTY)


def _forward(block_tokens, images, queries, keys, valid, with_mean_key):
    """Log-sum-exp per query and, on request, the softmax-weighted mean key."""

    def one_chunk(chunk):
        image, q = chunk
        logits = _block_logits(image, q, keys, valid)
        # fp32: log-sum-exp
        top = jax.lax.stop_gradient(logits.max(axis=(2, 3)))  # [p, t]
        weights = jnp.exp(logits - top[..., None, None])
        weights = jnp.where(logits > _EMPTY, weights, 0.0)
        total = weights.sum(axis=(2, 3))
        lse = jnp.where(total > 0, top + jnp.log(jnp.maximum(total, 1e-37)), _EMPTY)
        if not with_mean_key:
            return lse, None
        mean_key = jnp.einsum("ptam,amd->ptd", weights, keys)
        return lse, mean_key / jnp.maximum(total, 1e-37)[..., None]

    shape = queries.shape[:2]
    lse, mean_key = jax.lax.map(one_chunk, _chunks(block_tokens, images, queries))
    if mean_key is not None:
        mean_key = _unchunked(mean_key, shape)
    return _unchunked(lse, shape), mean_key


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _negatives_logsumexp(block_tokens, images, queries, keys, valid):
    return _forward(block_tokens, images, queries, keys, valid, with_mean_key=False)[0]


def _vjp_forward(
    block_tokens: int,
    images: CustomVJPPrimal,
    queries: CustomVJPPrimal,
    keys: CustomVJPPrimal,
    valid: CustomVJPPrimal,
):
    # d lse / d query is the softmax-weighted mean key: found here, in the same pass, it
    # spares the backward pass its two matrix products. The keys' gradient needs a
    # second pass; where the keys are constants (an EMA target) it is not even built.
    values = (images.value, queries.value, keys.value, valid.value)
    lse, mean_key = _forward(block_tokens, *values, queries.perturbed)
    for_keys = values if keys.perturbed else None
    return lse, (lse, mean_key, for_keys)


def _vjp_backward(block_tokens, residuals, g):
    lse, mean_key, for_keys = residuals
    grad_queries = None if mean_key is None else g[..., None] * mean_key
    if for_keys is None:
        return None, grad_queries, None, None
    images, queries, keys, valid = for_keys

    def add_chunk(grad_keys, chunk):
        image, q, chunk_lse, chunk_g = chunk
        logits = _block_logits(image, q, keys, valid)
        weights = jnp.exp(logits - chunk_lse[..., None, None])
        weights = jnp.where(logits > _EMPTY, weights, 0.0) * chunk_g[..., None, None]
        return grad_keys + jnp.einsum("ptam,ptd->amd", weights, q), None

    chunks = _chunks(block_tokens, images, queries, lse, g)
    # fp32, or wider: a sum over all queries
    zeros = jnp.zeros(keys.shape, jnp.promote_types(keys.dtype, queries.dtype))
    grad_keys, _ = jax.lax.scan(add_chunk, zeros, chunks)
    return None, grad_queries, grad_keys.astype(keys.dtype), None


_negatives_logsumexp.defvjp(_vjp_forward, _vjp_backward, symbolic_zeros=True)


def patch_ntxent(
    student: jax.Array,
    target: jax.Array,
    valid: jax.Array,
    *,
    temperature: float,
    same_view: jax.Array | None = None,
    same_view_valid: jax.Array | None = None,
    block_tokens: int = 1024,
) -> jax.Array:
    """Contrastive loss of each student token against the target token at its place.

    A token's positive is the target token in the same slot. Its negatives are all valid
    tokens of other images in `target` and, if given, in `same_view`; tokens of its own
    image are never negatives. Token pairs are visited in blocks of queries, each
    against all keys, so memory grows with the number of tokens, not with its square.

    Args:
        student: Student tokens, `[b, n, d]`, any float dtype; normalised inside.
        target: Target tokens aligned with `student` by rho_g, `[b, n, d]`. Stop their
            gradient outside if they are meant as constants: it then costs nothing.
        valid: Which slots hold tokens, in `student` and `target` alike, `[b, n]`, bool.
        temperature: Softmax temperature, > 0.
        same_view: Target tokens of the student's own view, `[b, m, d]`: the paper's
            second set of negatives. None leaves it out, as the released code does.
        same_view_valid: Which of those slots hold tokens, `[b, m]`, bool.
        block_tokens: Queries that a device compares at a time; bounds memory, not the
            result.

    Returns:
        Loss per token, `[b, n]`, float32, zero in padding slots. The caller averages
        over valid tokens. With a single image the loss is zero: there are no negatives.

    Raises:
        ValueError: If the shapes do not fit together or temperature is not positive.

    Reference:
        SER (arXiv 2603.06693), Sec. 3, the token-level NT-Xent.
    """
    if student.ndim != 3 or student.shape != target.shape:
        raise ValueError(
            "student and target must both be [b, n, d]; got "
            f"{student.shape} and {target.shape}."
        )
    if valid.shape != student.shape[:2]:
        raise ValueError(f"valid must be {student.shape[:2]}, got {valid.shape}.")
    if temperature <= 0:
        raise ValueError(f"temperature must be > 0, got {temperature}.")
    positives = l2_normalize(target)
    keys, key_valid = positives, valid
    if same_view is not None:
        if same_view_valid is None or same_view_valid.shape != same_view.shape[:2]:
            raise ValueError(
                f"same_view {same_view.shape} needs same_view_valid of shape "
                f"{same_view.shape[:2]}."
            )
        keys = jnp.concatenate([keys, l2_normalize(same_view)], axis=1)
        key_valid = jnp.concatenate([valid, same_view_valid], axis=1)
    return against_all(
        l2_normalize(student),
        positives,
        valid,
        jnp.arange(student.shape[0]),
        # Every query meets all keys: they are gathered once, before the loop.
        everywhere(keys),
        everywhere(key_valid),
        temperature=temperature,
        block_tokens=block_tokens,
    )


def against_all(
    queries: jax.Array,
    positives: jax.Array,
    valid: jax.Array,
    images: jax.Array,
    keys: jax.Array,
    key_valid: jax.Array,
    *,
    temperature: float,
    block_tokens: int = 1024,
) -> jax.Array:
    """The loss of `patch_ntxent` from unit vectors that are where they are needed.

    Args:
        queries: Student tokens, `[r, n, d]`, float32, rows spread over the devices.
        positives: The target token of each, `[r, n, d]`.
        valid: Which are tokens, `[r, n]`, bool.
        images: The image that each row is of, `[r]`, int32.
        keys: All target tokens of each image, `[b, m, d]`, any float dtype, on every
            device.
        key_valid: Which are tokens, `[b, m]`, bool.
        temperature: As of `patch_ntxent`.
        block_tokens: As of `patch_ntxent`.

    Returns:
        Loss per token, `[r, n]`, float32, zero where there is none.
    """
    queries = queries / temperature
    positive = jnp.sum(queries * positives, axis=-1)  # [r, n]
    negatives = _negatives_logsumexp(block_tokens, images, queries, keys, key_valid)
    # -log(e^p / (e^p + sum of negatives)), stable for any size of either
    loss = jnp.logaddexp(positive, negatives) - positive
    return jnp.where(valid, loss, 0.0)
