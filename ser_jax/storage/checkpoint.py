"""Checkpoints: state and JSON record, saved together and verified when restored.

A checkpoint is `<directory>/<step>/` with two items: `state`, the arrays, and `meta`,
the record: what the caller wants beside them (config, seed, data fingerprint) and a
checksum per leaf. Orbax writes it in the background and gives it its name when it is
whole. It does not notice a byte that changed later; the checksums do, and a list of the
files, for bytes that no value is read from.
"""

import contextlib
import datetime
import glob
import logging
import math
import re
import shutil
from collections.abc import Iterator, Sequence
from typing import Any, Self

import jax
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers

from ser_jax.storage.bucket import scheme_of
from ser_jax.storage.files import (
    PathLike,
    as_path,
    matching,
    move,
    refuse_unwritable,
)
from ser_jax.storage.manifest import write_manifest
from ser_jax.storage.reader import SavedState, read_meta
from ser_jax.storage.record import DamagedCheckpointError, Record, check_shardings

_NO_SPACE = re.compile("No space left on device|File too large|[Qq]uota exceeded")

_logger = logging.getLogger(__name__)


class NoSpaceError(OSError):
    """A checkpoint could not be written for lack of space; those before are there."""


def refuse_unusable(directory: PathLike) -> None:
    """Raises if checkpoints could not be saved in a directory, or not be read again.

    Orbax looks for the parts of a checkpoint with patterns, in which the directory's
    own name is one, too; and of buckets it knows `gs://` alone.

    Args:
        directory: Where checkpoints are to go.

    Raises:
        ValueError: If its path holds one of `*?[`, or is in a bucket of `s3://`.
    """
    path = str(as_path(directory))
    if scheme_of(path) == "s3":
        raise ValueError(
            f"expected a path of this machine or gs://, got {path!r}: Orbax, which "
            "saves the checkpoints, does not write to s3://. Train into a disk that "
            "all hosts share; data, results and reports may be on s3://"
        )
    if glob.has_magic(path):
        raise ValueError(
            f"expected a folder without *, ? or [ in its path, got {path!r}: "
            "checkpoints written there could not be read. Choose another, or a link "
            "to it with a plain name."
        )


class Checkpointer:
    """Saves in the background, keeps what the policies say, restores what is sound.

    Every process calls every method with the same arguments, on a directory that all of
    them share.
    """

    def __init__(
        self,
        directory: PathLike,
        *,
        keep_latest: int = 2,
        keep_every_steps: int | None = None,
        best_metric: str | None = None,
    ):
        """Opens the directory.

        Args:
            directory: Where the checkpoints go; made if absent.
            keep_latest: How many of the newest to keep, >= 1. With 2 or more there is
                something to fall back on when the newest is damaged.
            keep_every_steps: Keep every multiple of this step too; None: no such rule.
            best_metric: Keep the checkpoint with the highest value of this metric too,
                across restarts; None: no such rule.

        Raises:
            OSError: If the directory cannot be written to.
        """
        self._directory = as_path(directory)
        self._best_metric = best_metric
        self._policies: list[checkpoint_managers.PreservationPolicy] = [
            checkpoint_managers.LatestN(keep_latest)
        ]
        if keep_every_steps is not None:
            self._policies.append(checkpoint_managers.EveryNSteps(keep_every_steps))
        try:
            refuse_unwritable(self._directory)
        except OSError as error:
            raise OSError(
                f"cannot write checkpoints to {self._directory} ({error}); give a "
                "directory that this user can make or write to"
            ) from error
        self._open()

    def _open(self) -> None:
        self._best = _KeepBest()
        policy = checkpoint_managers.AnyPreservationPolicy(
            [*self._policies, self._best]
        )
        self._manager = ocp.CheckpointManager(
            self._directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policy,
                cleanup_tmp_directories=True,  # What a killed process left behind.
                async_options=ocp.AsyncOptions(
                    post_finalization_callback=self._list_files
                ),
            ),
            item_names=("state", "meta"),
        )
        for step in self.all_steps():
            # An unreadable record has no score; `restore` says what is wrong with it.
            with contextlib.suppress(OSError, ValueError):
                self._score(step, Record.read(self._directory / str(step) / "meta"))

    def _list_files(self) -> None:
        if jax.process_index():
            return
        if scheme_of(self._directory):  # What makes it a checkpoint comes after this.
            write_manifest(self._directory / str(self._saving))
            return
        # Complete, but not yet under its own name: the list appears with it.
        (unnamed,) = matching(self._directory, f"{self._saving}.orbax-checkpoint-tmp*")
        write_manifest(unnamed)

    def _score(self, step: int, record: Record) -> None:
        if self._best_metric is None or not record.metrics:
            return
        if self._best_metric not in record.metrics:
            raise ValueError(
                f"expected {self._best_metric!r}, the best_metric, among the metrics; "
                f"found {sorted(record.metrics)}. Give none where it is not measured"
            )
        score = record.metrics[self._best_metric]
        if math.isfinite(score):
            self._best.scores[step] = score

    def save(
        self,
        step: int,
        state: Any,
        meta: dict[str, Any],
        metrics: dict[str, float] | None = None,
    ) -> bool:
        """Starts saving.

        Returns once the state is copied to the host, so it may be donated to the next
        step. What goes wrong while writing is raised by the next `save`, `wait` or
        `close`.

        Args:
            step: Number of optimizer steps behind `state`.
            state: Arrays only.
            meta: Anything JSON can hold.
            metrics: What was measured on this state, by name; None if nothing was.

        Returns:
            Whether a save was started; not if this step exists already.

        Raises:
            NoSpaceError: If there was no room for the one before.
            TypeError: If `meta` is not JSON.
            ValueError: If there are metrics, but not `best_metric`.
        """
        if step in self.all_steps():
            return False
        record = Record.of(state, meta, metrics or {})
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(_once(state)),
            meta=ocp.args.JsonSave(record.to_json()),
        )
        self._score(step, record)
        self.wait()  # `_list_files` is about the step before until then.
        self._saving = step
        with self._one_message():
            return self._manager.save(step, args=items, force=True)

    def restore(self, abstract_state: Any) -> tuple[Any, dict[str, Any]] | None:
        """The newest sound state and its meta.

        Newer checkpoints that are damaged (unreadable, or a checksum differs) are moved
        to `<directory>/damaged/` (in a bucket: `<directory>.damaged/`) with a warning,
        so their steps can be saved again.

        Args:
            abstract_state: `jax.ShapeDtypeStruct` leaves, each with a sharding; the
                devices need not be those that saved.

        Returns:
            State in the shardings of `abstract_state`, and meta; None if there is no
            checkpoint.

        Raises:
            CheckpointMismatchError: If a checkpoint is of another state. It stays.
            ValueError: If a leaf has no sharding; or if there are checkpoints and all
                are damaged. They stay, so a restarted job does not begin from scratch.
        """
        check_shardings(abstract_state)
        self.wait()
        damaged: dict[int, str] = {}
        for step in reversed(self.all_steps()):
            try:
                saved = SavedState.at(self._directory / str(step))
                state = saved.restore(abstract_state)
            except DamagedCheckpointError as error:
                # The text alone: a traceback would keep the bad state on the devices.
                damaged[step] = error.reason
            else:
                if damaged:
                    self._set_aside(damaged, instead=step)
                return state, saved.record.meta
        if not damaged:
            return None
        reasons = "\n".join(f"  {step}: {text}" for step, text in damaged.items())
        raise ValueError(
            f"every checkpoint in {self._directory} is damaged:\n{reasons}\n"
            "Restore one from a backup, or start again in an empty directory"
        )

    def _set_aside(self, damaged: dict[int, str], instead: int) -> None:
        self._manager.close()
        now = datetime.datetime.now().strftime("%Y%m%dT%H%M%S.%f")
        for step, reason in damaged.items():
            path = self._directory / str(step)
            target = self._set_aside_in() / f"{step}-{now}"
            if jax.process_index() == 0:
                move(path, target)
            _logger.warning(
                f"Checkpoint {path} is damaged ({reason}). It is kept as "
                f"{target}; step {instead} is used instead."
            )
        multihost_utils.sync_global_devices("damaged checkpoints set aside")
        self._open()  # The old manager would refuse to save these steps again.

    def _set_aside_in(self) -> epath.Path:
        if scheme_of(self._directory):  # where Orbax deletes all that is no checkpoint
            return self._directory.with_name(f"{self._directory.name}.damaged")
        return self._directory / "damaged"

    def read_meta(self, step: int | None = None) -> dict[str, Any]:
        """What the function `read_meta` says of this directory."""
        return read_meta(self._directory, step)

    def all_steps(self) -> list[int]:
        """Steps of the checkpoints, ascending, one being written included."""
        return sorted(self._manager.all_steps())

    def latest_step(self) -> int | None:
        """Step of the newest checkpoint, or None."""
        return max(self.all_steps(), default=None)

    def wait(self) -> None:
        """Returns when all that was saved is on disk; raises what went wrong.

        Raises:
            NoSpaceError: If there was no room for it.
        """
        with self._one_message():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then stops the threads."""
        with self._one_message():
            self._manager.close()

    @contextlib.contextmanager
    def _one_message(self) -> Iterator[None]:
        """Says in one line that there is no room, of which Orbax makes many."""
        try:
            yield
        except Exception as error:  # of any type: tensorstore's, Orbax's, Python's
            found = _NO_SPACE.search(str(error))
            if not found or scheme_of(self._directory):
                raise
            last = self._whole_steps()
            free = shutil.disk_usage(self._directory).free
            raise NoSpaceError(
                f"no space for checkpoint {self._saving} in {self._directory} "
                f"({found[0]}; {free / 2**20:,.0f} MiB are free there): "
                f"{f'checkpoint {last[-1]} is the last' if last else 'there is none'}. "
                "Make room, or raise the quota or limit, and run the same command again"
            ) from None

    def _whole_steps(self) -> list[int]:
        names = (path.name for path in matching(self._directory, "*"))
        return sorted(int(name) for name in names if name.isdecimal())

    def __enter__(self) -> Self:
        """The checkpointer itself."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Closes it."""
        self.close()


def _once(state: Any) -> Any:
    """One device's copy of what all have, if one process has all of them.

    Of an array with several copies each device would write a part, by a program of its
    own, hundreds of which are compiled at the first save.
    """
    if jax.process_count() > 1:
        return state
    return jax.tree.map(
        lambda x: x.addressable_data(0) if x.is_fully_replicated else x, state
    )


class _KeepBest(checkpoint_managers.PreservationPolicy):
    """Preserves the checkpoint with the highest score.

    Orbax's `BestN` reads a file of its own per checkpoint, and its manager cannot be
    opened once one of those is damaged. These scores come from the records.
    """

    def __init__(self) -> None:
        self.scores: dict[int, float] = {}

    def should_preserve(
        self,
        checkpoints: Sequence[checkpoint_managers.PolicyCheckpointInfo],
        *,
        context: checkpoint_managers.PreservationContext,
    ) -> list[bool]:
        steps = [info.step for info in checkpoints]
        scored = [step for step in steps if step in self.scores]
        best = max(scored, key=self.scores.__getitem__, default=None)
        return [step == best for step in steps]
