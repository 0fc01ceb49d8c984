"""Checksums of arrays, computed where the arrays are."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def named_leaves(tree: Any) -> dict[str, Any]:
    """Leaves of a tree by path, such as "params/encoder/kernel", in tree order."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def leaf_checksums(tree: Any) -> dict[str, int]:
    """Checksum of every leaf, by path.

    With `bits_i` the bit pattern of the i-th element of the global array, row-major,
    as an unsigned 32-bit number, the checksum is

        sum_i mix(bits_i + i * 0x9E3779B9)  mod 2^32.

    `mix`, the finalizer of MurmurHash3, is a bijection, so any change of one element
    changes the sum; changes of several cancel with chance 2^-32. (Without it, as in a
    sum of bits_i * (2i + 1), they cancel where it hurts: one bad byte in a compressed
    constant array adds the same d to all n elements, so d * n^2 to that sum, which is
    0 whenever n is a multiple of 65536.) Integer addition is exact in any order: the
    sum depends neither on the sharding nor on the number of devices. Only the sums
    travel to the host, as soon as `tree` is computed.

    Args:
        tree: Arrays of boolean, integer or real dtype, or typed PRNG keys; sharded or
            not.

    Returns:
        Path to checksum, 0 to 2^32 - 1.

    Reference:
        Appleby, MurmurHash3 (public domain), function `fmix32`.
    """
    # All are dispatched before any is fetched; one compilation serves equal leaves.
    sums = {name: _replicated(leaf) for name, leaf in named_leaves(tree).items()}
    return {name: int(value) for name, value in jax.device_get(sums).items()}


def _replicated(leaf: jax.Array) -> jax.Array:
    """The checksum on every device, so that every process can read it."""
    mesh = getattr(leaf.sharding, "mesh", None)
    sharding = None if mesh is None else jax.NamedSharding(mesh, jax.P())
    return jax.jit(_checksum, out_shardings=sharding)(leaf)


def _checksum(leaf: jax.Array) -> jax.Array:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if leaf.dtype == jnp.bool_:
        leaf = leaf.astype(jnp.uint8)
    num_bits = min(8 * leaf.dtype.itemsize, 32)  # A 64-bit element becomes a pair.
    bits = jax.lax.bitcast_convert_type(leaf, f"uint{num_bits}").astype(jnp.uint32)
    # From iotas, as flattening a sharded array would gather it.
    index = jnp.zeros(bits.shape, jnp.uint32)
    for axis, size in enumerate(bits.shape):
        index = index * size + jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
    bits += index * np.uint32(0x9E3779B9)
    bits = (bits ^ (bits >> 16)) * np.uint32(0x85EBCA6B)
    bits = (bits ^ (bits >> 13)) * np.uint32(0xC2B2AE35)
    return jnp.sum(bits ^ (bits >> 16), dtype=jnp.uint32)
