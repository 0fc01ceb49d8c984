"""The JSON item of a checkpoint: what it holds, and how its arrays are verified."""

import dataclasses
import json
import zlib
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

_NUM_SHOWN = 5


class DamagedCheckpointError(ValueError):
    """The files of a checkpoint are not what was written.

    Attributes:
        reason: Which file or value, in one line.
    """

    def __init__(self, checkpoint: epath.Path, reason: str):
        """Names the checkpoint's directory."""
        super().__init__(f"checkpoint {checkpoint} is damaged: {reason}")
        self.reason = reason


class CheckpointMismatchError(ValueError):
    """The checkpoint is sound but belongs to another model, optimizer or state."""


@dataclasses.dataclass(frozen=True)
class Record:
    """What is known of a saved state.

    Attributes:
        meta: What the caller saved beside the state.
        metrics: What was measured on it.
        specs: Leaf path to dtype and shape: "float32[3, 4]".
        checksums: Leaf path to checksum.
    """

    meta: dict[str, Any]
    metrics: dict[str, float]
    specs: dict[str, str]
    checksums: dict[str, int]

    @classmethod
    def of(cls, state: Any, meta: dict[str, Any], metrics: dict[str, float]) -> Self:
        """The record of a state, its checksums computed on the devices."""
        floats = {name: float(value) for name, value in metrics.items()}
        return cls(meta, floats, _specs(state), leaf_checksums(state))

    @classmethod
    def read(cls, directory: epath.Path) -> Self:
        """The record stored in a checkpoint's `meta` directory.

        Raises:
            ValueError: If it is missing or not what was written.
        """
        try:
            fields = ocp.JsonCheckpointHandler().restore(directory)
        except FileNotFoundError as error:
            raise ValueError(f"the record in {directory} is missing") from error
        if not isinstance(fields, dict) or fields.pop("crc32", None) != _crc32(fields):
            raise ValueError(f"the record in {directory} is not what was written")
        return cls(**fields)

    def to_json(self) -> dict[str, Any]:
        """The fields and their CRC-32, for `read`.

        Raises:
            TypeError: If `meta` holds what JSON cannot.
        """
        fields = dataclasses.asdict(self)
        return {**fields, "crc32": _crc32(fields)}

    def part(self, name: str) -> "Record":
        """The record of one leaf, or of the leaves below one path."""

        def below(leaves: dict[str, Any]) -> dict[str, Any]:
            return {k: v for k, v in leaves.items() if f"{k}/".startswith(f"{name}/")}

        return dataclasses.replace(
            self, specs=below(self.specs), checksums=below(self.checksums)
        )

    def check_specs(self, abstract_state: Any) -> None:
        """Returns if the state has the recorded leaves.

        Raises:
            CheckpointMismatchError: If not; names the first leaves that differ.
        """
        wanted = _specs(abstract_state)
        differing = [
            f"{name}: expected {wanted.get(name, 'none')}, "
            f"found {self.specs.get(name, 'none')}"
            for name in {**wanted, **self.specs}
            if wanted.get(name) != self.specs.get(name)
        ]
        if differing:
            raise CheckpointMismatchError(
                f"the checkpoint is of another state: {_listed(differing, '; ')}. Use "
                "the config it was saved with, or another directory"
            )

    def check_values(self, state: Any) -> None:
        """Returns if every leaf has the recorded checksum.

        Raises:
            ValueError: If not; names the first leaves that differ.
        """
        found = leaf_checksums(state)
        changed = [k for k, value in self.checksums.items() if found[k] != value]
        if changed:
            raise ValueError(f"values changed on disk: {_listed(changed, ', ')}")


def check_shardings(abstract_state: Any) -> None:
    """Returns if every leaf says where to put it.

    Raises:
        ValueError: If not. Orbax would restore onto the devices that saved, or fail.
    """
    for name, leaf in named_leaves(abstract_state).items():
        if getattr(leaf, "sharding", None) is None:
            raise ValueError(
                f"{name} has no sharding; expected "
                "jax.ShapeDtypeStruct(shape, dtype, sharding=...) in every leaf"
            )


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


def _specs(tree: Any) -> dict[str, str]:
    return {k: f"{v.dtype}{list(v.shape)}" for k, v in named_leaves(tree).items()}


def _crc32(fields: dict[str, Any]) -> int:
    # Through JSON once, so that tuples and keys are what reading gives back.
    plain = json.loads(json.dumps(fields))
    return zlib.crc32(json.dumps(plain, sort_keys=True).encode())


def _listed(items: list[str], separator: str) -> str:
    more = f" (and {len(items) - _NUM_SHOWN} more)" if len(items) > _NUM_SHOWN else ""
    return separator.join(items[:_NUM_SHOWN]) + more


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
