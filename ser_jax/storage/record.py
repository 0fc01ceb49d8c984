"""The JSON item of a checkpoint: what it holds, and how its arrays are verified."""

import dataclasses
import json
import pathlib
import zlib
from typing import Any, Self

import orbax.checkpoint as ocp

from ser_jax.storage.checksum import leaf_checksums, named_leaves

_NUM_SHOWN = 5


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
    def read(cls, directory: pathlib.Path) -> Self:
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


def _specs(tree: Any) -> dict[str, str]:
    return {k: f"{v.dtype}{list(v.shape)}" for k, v in named_leaves(tree).items()}


def _crc32(fields: dict[str, Any]) -> int:
    # Through JSON once, so that tuples and keys are what reading gives back.
    plain = json.loads(json.dumps(fields))
    return zlib.crc32(json.dumps(plain, sort_keys=True).encode())


def _listed(items: list[str], separator: str) -> str:
    more = f" (and {len(items) - _NUM_SHOWN} more)" if len(items) > _NUM_SHOWN else ""
    return separator.join(items[:_NUM_SHOWN]) + more
