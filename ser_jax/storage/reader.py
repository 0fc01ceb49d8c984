"""Reading checkpoints: verified, and writing nothing.

Training and evaluation read through `SavedState`: what the one does not go on from, the
other refuses.
"""

import contextlib
import dataclasses
import functools
import json
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from ser_jax.storage.bucket import scheme_of
from ser_jax.storage.files import PathLike, as_path
from ser_jax.storage.manifest import check_manifest
from ser_jax.storage.record import (
    CheckpointMismatchError,
    DamagedCheckpointError,
    Record,
    check_shardings,
)

# Errors that say the machine is in trouble, not that the files are.
_NOT_DAMAGE = (jax.errors.JaxRuntimeError, MemoryError, PermissionError)


@dataclasses.dataclass(frozen=True)
class SavedState:
    """A checkpoint whose files are what was written.

    Attributes:
        path: Its directory.
        record: What is known of it.
    """

    path: epath.Path
    record: Record

    @classmethod
    def at(cls, path: epath.Path) -> Self:
        """The checkpoint in a directory, every one of its files verified.

        Every process calls it with the same argument. In a bucket the first one asks
        for the checksums of all objects; on disks each reads the files that it sees.

        Raises:
            DamagedCheckpointError: If a file is not what was written.
        """
        with _damage_named(path):
            if not (scheme_of(path) and jax.process_index()):
                check_manifest(path)
            return cls(path, Record.read(path / "meta"))

    def restore(self, abstract_state: Any, part: str | None = None) -> Any:
        """The arrays, every value verified. Every process calls it alike.

        Args:
            abstract_state: `jax.ShapeDtypeStruct` leaves, each with a sharding; the
                devices need not be those that saved.
            part: Path of a part of the state: "variables/params/encoder"; None: all.

        Returns:
            The arrays, in the structure and shardings of `abstract_state`.

        Raises:
            CheckpointMismatchError: If the part is absent or has other leaves.
            DamagedCheckpointError: If a value is not what was written.
            ValueError: If a leaf has no sharding.
        """
        check_shardings(abstract_state)
        record = self.record if part is None else self.record.part(part)
        keys = [] if part is None else part.split("/")
        item = functools.reduce(
            lambda tree, key: {key: tree}, keys[::-1], abstract_state
        )
        record.check_specs(item)
        with _damage_named(self.path):
            restored = _read_arrays(self.path / "state", item)
        with _damage_named(self.path):  # apart: all processes compute the checksums
            record.check_values(restored)
        return functools.reduce(lambda tree, key: tree[key], keys, restored)

    def digest(self, parts: Sequence[str]) -> int:
        """One number for parts of the state: that of other values differs.

        Args:
            parts: Their paths.

        Returns:
            CRC-32 of the recorded checksums of all their leaves.
        """
        sums = {name: self.record.part(name).checksums for name in parts}
        return zlib.crc32(json.dumps(sums, sort_keys=True).encode())


def find_checkpoint(directory: PathLike, step: int | None = None) -> epath.Path:
    """The directory of one checkpoint.

    Args:
        directory: Where the checkpoints are.
        step: Which one; None is the newest.

    Returns:
        Its path; nothing in it is verified.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
    """
    root, steps = as_path(directory), list_steps(directory)
    if not steps or step not in (None, *steps):
        wanted = "a checkpoint" if step is None else f"step {step}"
        raise FileNotFoundError(f"expected {wanted} in {root}, found {steps}")
    return root / str(steps[-1] if step is None else step)


def list_steps(directory: PathLike) -> list[int]:
    """Steps of the checkpoints in a directory, ascending; [] if it is not there."""
    found = ocp.path.step.standard_name_format().find_all(as_path(directory))
    return sorted(checkpoint.step for checkpoint in found)


def sound_steps(directory: PathLike) -> list[int]:
    """Those of `list_steps` whose files are what was written."""
    sound = []
    for step in list_steps(directory):
        with contextlib.suppress(DamagedCheckpointError, OSError):
            SavedState.at(as_path(directory) / str(step))
            sound.append(step)
    return sound


def read_meta(directory: PathLike, step: int | None = None) -> dict[str, Any]:
    """The `meta` a checkpoint was saved with; its arrays may be damaged.

    Args:
        directory: Where the checkpoints are.
        step: Which one; None is the newest.

    Returns:
        The dictionary given to `Checkpointer.save`, as JSON gives it back.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If its record is damaged or missing.
    """
    return Record.read(find_checkpoint(directory, step) / "meta").meta


def _read_arrays(path: epath.Path, abstract_tree: Any) -> Any:
    """The leaves of `abstract_tree` out of a checkpoint's `state`, unverified.

    Uses Orbax's handler itself: its checkpointer adds a barrier, at which the other
    processes would wait for one that found a broken file.
    """
    args = ocp.args.PyTreeRestore(
        item=abstract_tree,
        partial_restore=True,
        restore_args=ocp.checkpoint_utils.construct_restore_args(abstract_tree),
    )
    with contextlib.closing(ocp.PyTreeCheckpointHandler()) as handler:
        return handler.restore(path, args=args)


@contextlib.contextmanager
def _damage_named(path: epath.Path) -> Iterator[None]:
    """Makes what broken files raise, in any process, one error in all of them."""
    try:
        with _all_processes_or_none():
            yield
    except (CheckpointMismatchError, *_NOT_DAMAGE):
        raise
    except Exception as error:  # Orbax raises many types for broken files.
        name = "" if type(error) is ValueError else f"{type(error).__name__}: "
        reason = f"{name}{error}".splitlines()[0]
        raise DamagedCheckpointError(path, reason) from None


@contextlib.contextmanager
def _all_processes_or_none() -> Iterator[None]:
    """Makes an error in one process an error in all: each reads files of its own."""
    mine = everyone = False
    try:
        yield
        mine = True
    finally:
        everyone = bool(multihost_utils.process_allgather(np.array(mine)).all())
    if not everyone:
        raise ValueError("another process cannot read its part")
