"""Checksums: every change is seen, the sharding is not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ser_jax.storage.record import _checksum, leaf_checksums


def checksum(array):
    return leaf_checksums({"x": jnp.asarray(array)})["x"]


def test_follows_its_formula():
    values = np.array([[1.5, -2.0, 0.0], [np.inf, np.nan, 3e-40]], np.float32)
    total = 0
    for i, bits in enumerate(values.view(np.uint32).ravel().tolist()):
        h = (bits + i * 0x9E3779B9) % 2**32
        h = (h ^ (h >> 16)) * 0x85EBCA6B % 2**32
        h = (h ^ (h >> 13)) * 0xC2B2AE35 % 2**32
        total += h ^ (h >> 16)
    assert checksum(values) == total % 2**32


@pytest.mark.parametrize(
    "dtype", ["float32", "bfloat16", "float16", "int32", "uint8", "int8", "bool"]
)
def test_any_changed_element_changes_it(dtype):
    values = np.zeros((3, 5), dtype)
    sums = {checksum(values)}
    for i in range(15):
        changed = values.copy()
        changed.flat[i] = 1
        sums.add(checksum(changed))
    assert len(sums) == 16


def test_sees_the_changes_a_weighted_sum_misses():
    ones = np.ones(65536, np.float32)
    assert checksum(ones) != checksum(-ones)
    assert checksum(ones) != checksum(2 * ones)


def test_keys_are_told_apart():
    keys = jax.random.split(jax.random.key(0), 3)
    assert checksum(keys) != checksum(keys[::-1])


def test_does_not_depend_on_the_sharding():
    values = jax.random.normal(jax.random.key(0), (16, 8, 3)).astype(jnp.bfloat16)
    mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(4, 2), ("data", "fsdp"))
    single = checksum(values)
    for spec in [jax.P(), jax.P("data"), jax.P("data", "fsdp"), jax.P(None, "fsdp")]:
        assert checksum(jax.device_put(values, jax.NamedSharding(mesh, spec))) == single


def test_no_array_is_gathered():
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    array = jax.ShapeDtypeStruct(
        (16, 8), jnp.float32, sharding=jax.NamedSharding(mesh, jax.P(None, "data"))
    )
    compiled = jax.jit(_checksum).lower(array).compile().as_text()
    assert "all-gather" not in compiled
    assert "all-reduce" in compiled
