"""States to checkpoint, and ways to damage what was saved."""

import atexit
import functools
import shutil
import tempfile
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ser_jax.storage.checkpoint import Checkpointer


@flax.struct.dataclass
class State:
    step: jax.Array
    params: Any
    opt_state: Any
    rng: jax.Array
    flag: jax.Array


def make_state(seed=0, width=64):
    rng = jax.random.key(seed)
    params = {
        "encoder": {"kernel": jax.random.normal(rng, (64, width))},
        "head": {"scale": jnp.arange(8, dtype=jnp.bfloat16) + seed},
    }
    opt_state = optax.adamw(1e-3).init(params)
    return State(jnp.int32(seed), params, opt_state, rng, jnp.array(True))


def shardings(tree, num_devices):
    """Splits the matrices' rows over the devices, replicates the rest."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:num_devices]), ("data",))
    return jax.tree.map(
        lambda x: jax.NamedSharding(mesh, jax.P("data") if x.ndim == 2 else jax.P()),
        tree,
    )


def placed(state, num_devices=8):
    return jax.device_put(state, shardings(state, num_devices))


def abstract(state, num_devices=8):
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        state,
        shardings(state, num_devices),
    )


def assert_same(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def save_steps(directory, steps):
    """Checkpoints of made-up states: copies of what was saved once."""
    shutil.copytree(_saved(*steps), directory, dirs_exist_ok=True)


@functools.cache
def _saved(*steps):
    folder = tempfile.mkdtemp(prefix="ser_jax_steps_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with Checkpointer(folder, keep_latest=9) as checkpointer:
        for step in steps:
            assert checkpointer.save(step, placed(make_state(step)), {"step": step})
    return folder


def largest_data_file(checkpoint):
    files = [f for f in (checkpoint / "state").rglob("*") if f.parent.name == "d"]
    return max(files, key=lambda f: f.stat().st_size)


def truncate(checkpoint):
    file = largest_data_file(checkpoint)
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])


def delete_data(checkpoint):
    largest_data_file(checkpoint).unlink()


def delete_state(checkpoint):
    shutil.rmtree(checkpoint / "state")


def empty(checkpoint):
    shutil.rmtree(checkpoint)
    checkpoint.mkdir()


def flip_byte(checkpoint):
    file = largest_data_file(checkpoint)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def flip_digit_of_meta(checkpoint):
    file = checkpoint / "meta" / "metadata"
    file.write_text(file.read_text().replace('"step": 3', '"step": 7', 1))


def truncate_meta(checkpoint):
    file = checkpoint / "meta" / "metadata"
    file.write_text(file.read_text()[:50])
