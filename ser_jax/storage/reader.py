"""Reading checkpoints without a run: for evaluation, and writing nothing."""

import contextlib
import functools
import json
import zlib
from collections.abc import Sequence
from typing import Any

import orbax.checkpoint as ocp
from etils import epath

from ser_jax.storage.files import PathLike, as_path
from ser_jax.storage.record import Record, check_shardings


def read_meta(directory: PathLike, step: int | None = None) -> dict[str, Any]:
    """The `meta` a checkpoint was saved with; needs no state and writes nothing.

    Args:
        directory: Where the checkpoints are.
        step: Which one; None is the newest.

    Returns:
        The dictionary given to `Checkpointer.save`, as JSON gives it back.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If its record is damaged or missing.
    """
    return Record.read(_step_path(directory, step) / "meta").meta


def read_digest(
    directory: PathLike, names: Sequence[str], step: int | None = None
) -> int:
    """One number for parts of a saved state: that of other values differs.

    Args:
        directory: Where the checkpoints are.
        names: Paths of the parts in the state.
        step: Which checkpoint; None is the newest.

    Returns:
        CRC-32 of the recorded checksums of all their leaves.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If its record is damaged or missing.
    """
    record = Record.read(_step_path(directory, step) / "meta")
    sums = {name: record.part(name).checksums for name in names}
    return zlib.crc32(json.dumps(sums, sort_keys=True).encode())


def load_subtree(
    directory: PathLike, abstract_subtree: Any, name: str, step: int | None = None
) -> Any:
    """One part of a saved state, verified; for evaluation, so nothing is written.

    Args:
        directory: Where the checkpoints are.
        abstract_subtree: `jax.ShapeDtypeStruct` leaves, each with a sharding.
        name: Path of the part in the state: "variables/params/encoder".
        step: Which checkpoint; None is the newest.

    Returns:
        The arrays, in the structure and shardings of `abstract_subtree`.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        CheckpointMismatchError: If the part is absent or has other leaves.
        ValueError: If the checkpoint is damaged, or a leaf has no sharding.
    """
    check_shardings(abstract_subtree)
    path = _step_path(directory, step)
    keys = name.split("/")
    item = functools.reduce(lambda tree, key: {key: tree}, keys[::-1], abstract_subtree)
    record = Record.read(path / "meta").part(name)
    record.check_specs(item)
    restored = read_arrays(path / "state", item)
    record.check_values(restored)
    return functools.reduce(lambda tree, key: tree[key], keys, restored)


def read_arrays(path: epath.Path, abstract_tree: Any) -> Any:
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


def _step_path(directory: PathLike, step: int | None) -> epath.Path:
    root = as_path(directory)
    found = ocp.path.step.standard_name_format().find_all(root)
    steps = sorted(checkpoint.step for checkpoint in found)
    if not steps or step not in (None, *steps):
        wanted = "a checkpoint" if step is None else f"step {step}"
        raise FileNotFoundError(f"expected {wanted} in {root}, found {steps}")
    return root / str(steps[-1] if step is None else step)
