"""Random access to the encoded images of any prepared TFDS data set."""

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, Self, SupportsIndex

import numpy as np
from etils import epath

from ser_jax.data.fingerprint import fingerprint
from ser_jax.storage.bucket import scheme_of
from ser_jax.storage.files import as_path, matching, num_bytes, warn_once

_PREPARE_FLAGS = {
    "imagenet2012": (
        "--imagenet_train_tar=ILSVRC2012_img_train.tar "
        "--imagenet_val_tar=ILSVRC2012_img_val.tar"
    ),
    "cifar10": "--cifar_archive=cifar-10-python.tar.gz",
    "cifar100": "--cifar_archive=cifar-100-python.tar.gz",
}


class UnreadableRecordError(ValueError):
    """A record cannot be read, or its image not decoded; the message names it."""


class Shard(NamedTuple):
    """The part of a file that belongs to a split.

    Attributes:
        path: The file.
        first: Its first record that does.
        num_records: How many do.
    """

    path: str
    first: int
    num_records: int


@dataclasses.dataclass(frozen=True)
class Source:
    """Records of one split, by index; picklable.

    A record is `{"image": encoded bytes, "label": int, "index": int}`: the label is -1
    where the set has none, the index the record's position in the split.

    Attributes:
        name: Name of the data set.
        split: Split, as asked for ("train", "train[:10%]", "train+test").
        num_classes: Number of classes, or None for a set without labels.
        fingerprint: What tells this data from other data, wherever it is stored: name,
            version, split, num_examples and a hash over all shard lengths.
        class_names: Names of the classes in the order of their labels, or None where
            the set has none (or only "0", "1", ...).
        shards: The files with the records, in their order; () if they are in none.
        content: What the records are, by split that they are from: see
            `data.fingerprint`. Apart from `fingerprint`, which checkpoints record.
    """

    name: str
    split: str
    num_classes: int | None
    fingerprint: dict[str, str | int]
    records: Sequence[dict[str, Any]] = dataclasses.field(repr=False)
    class_names: tuple[str, ...] | None = dataclasses.field(default=None, repr=False)
    shards: tuple[Shard, ...] = dataclasses.field(default=(), repr=False)
    content: dict[str, str] = dataclasses.field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        """Number of records."""
        return len(self.records)

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        """The record at a position, in [0, len).

        Raises:
            UnreadableRecordError: If it cannot be read, or has no such label.
        """
        position = index.__index__()
        try:
            record = self.records[position]
            label = -1 if self.num_classes is None else int(record["label"])
            image = record["image"]
        except (OSError, UnreadableRecordError):  # they name a file, or the record
            raise
        except Exception as error:  # on broken bytes the readers raise anything
            raise self.unreadable(position, error) from error
        if self.num_classes and not -1 <= label < self.num_classes:
            why = f"its label is {label}, expected 0 to {self.num_classes - 1}"
            raise self.unreadable(position, why)
        return {"image": image, "label": label, "index": position}

    def unreadable(self, index: int, why: Exception | str) -> UnreadableRecordError:
        """The error that names a record and its place on disk.

        Args:
            index: Of the record.
            why: What is wrong.

        Returns:
            The error, in one line.
        """
        _, position = self.stored(index)
        place = ""
        for shard in self.shards:
            if position < shard.num_records:
                place = f" (record {shard.first + position} of {shard.path})"
                break
            position -= shard.num_records
        text = " ".join(str(why).split())
        return UnreadableRecordError(
            f"record {index} of {self.name!r}, split {self.split!r}{place}, cannot be "
            f"read: {text}. The data set is damaged, or was not made by `python -m "
            "ser_jax.data.prepare`, which leaves unreadable files out: copy it again, "
            "or remove it and prepare it again."
        )

    def stored(self, index: int) -> tuple[Any, int]:
        """Where a record is, however many parts of parts this is.

        Args:
            index: Of the record.

        Returns:
            The records as they were opened, and its position in them.
        """
        records: Any = self.records
        while isinstance(records, _Picked):
            records, index = records.records, int(records.chosen[index])
        return records, index

    def pick(self, chosen: np.ndarray) -> Self:
        """The records at some positions, counted from 0 again.

        Args:
            chosen: The positions, `[k]` int.

        Returns:
            The source of these.
        """
        return dataclasses.replace(self, records=_Picked(self.records, chosen))

    def subset(self, num_examples: int) -> Self:
        """The same source, or `num_examples` of its records picked evenly at random.

        The pick is the same every time. Their `index` counts within the pick.
        """
        if num_examples >= len(self):
            return self
        chosen = np.random.default_rng(0).permutation(len(self))[:num_examples]
        return self.pick(np.sort(chosen))

    def part(self, start: int, stop: int) -> Self:
        """The records from `start` to before `stop`, counted from 0 again."""
        chosen = np.arange(start, min(stop, len(self)))
        picked = self.pick(chosen)
        return dataclasses.replace(picked, split=f"{self.split}[{start}:{stop}]")


@dataclasses.dataclass(frozen=True)
class _Picked(Sequence[dict[str, Any]]):
    """Records at chosen positions."""

    records: Sequence[dict[str, Any]]
    chosen: np.ndarray

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: Any) -> Any:
        return self.records[int(self.chosen[index])]


def open_source(name: str, split: str, data_dir: str | os.PathLike[str]) -> Source:
    """The records of one split of a prepared data set.

    `digits`, the small default, is written to `data_dir` when it is not there yet.
    Records in a bucket are read where they are, each by requests of its own.

    Args:
        name: TFDS name: "imagenet2012", "dataset/config", "dataset:1.0.0"; without a
            version, the newest one prepared.
        split: Any TFDS split: "train", "train[:10%]", "train+validation".
        data_dir: Folder that holds the data sets.

    Returns:
        The source.

    Raises:
        FileNotFoundError: If no such data set is prepared there, or it lacks a file.
        ValueError: If the split is unknown or empty, the set has no feature `image`,
            was prepared in a file format without random access, or is on s3://.
    """
    import tensorflow_datasets as tfds  # 0.4 s; worker processes may not need it

    root = as_path(data_dir)
    _tell_of_bucket(name, root)
    directory = _find(name, root)
    if directory is None and name == "digits":
        from ser_jax.data.digits import write_digits  # It brings TFDS.

        write_digits(root)
        directory = _find(name, root)
    if directory is None:
        raise FileNotFoundError(_not_prepared(name, root))
    builder = tfds.builder_from_directory(directory)
    features, splits = builder.info.features, builder.info.splits
    if "image" not in features:
        raise ValueError(
            f"{name!r} has no feature 'image'; it has {', '.join(sorted(features))}"
        )
    try:
        num_examples = splits[split].num_examples
    except ValueError as error:
        sizes = ", ".join(
            f"{key} ({info.num_examples})" for key, info in splits.items()
        )
        raise ValueError(
            f"{name!r} has no split {split!r}; it has {sizes}, and parts of them such "
            "as 'train[:10%]'"
        ) from error
    if not num_examples:
        raise ValueError(f"split {split!r} of {name!r} is empty; ask for a larger part")
    try:
        records = builder.as_data_source(
            split, decoders={"image": tfds.decode.SkipDecoding()}
        )
    except NotImplementedError as error:
        raise ValueError(
            f"{directory} was prepared as {builder.info.file_format.value}, which has "
            "no random access; prepare it with file_format='array_record'"
        ) from error
    shards = tuple(
        Shard(os.fspath(part.filename), part.skip, part.take)
        for part in splits[split].file_instructions
    )
    for shard in shards:
        path = as_path(shard.path)
        if not path.exists() or not num_bytes(path):
            raise FileNotFoundError(
                f"{path}, a file of {name!r}, is not there or empty; copy the data set "
                "again, or remove it and prepare it again"
            )
    label = features["label"] if "label" in features else None
    num_classes, class_names = None, None
    if isinstance(label, tfds.features.ClassLabel):
        num_classes, class_names = label.num_classes, tuple(label.names)
        if class_names == tuple(map(str, range(num_classes))):
            class_names = None  # TFDS's filling for classes without names
    lengths = {key: list(info.shard_lengths) for key, info in splits.items()}
    digest = hashlib.sha256(json.dumps(lengths, sort_keys=True).encode()).hexdigest()
    return Source(
        name=name,
        split=split,
        num_classes=num_classes,
        fingerprint={
            "name": name.partition(":")[0],
            "version": str(builder.version),
            "split": split,
            "num_examples": num_examples,
            "shards": digest[:16],
        },
        records=records,
        class_names=class_names,
        shards=shards,
        content=_content(directory, split),
    )


def _tell_of_bucket(name: str, root: epath.Path) -> None:
    """Says what reading from a bucket costs, or that it is not done."""
    scheme = scheme_of(root)
    if not scheme:
        return
    stage = f"python -m ser_jax.data.stage --source={root} --data_dir=DISK"
    if scheme == "s3":
        raise ValueError(
            f"records are not read from {root}: ArrayRecord knows disks and gs://. "
            f"Copy the data set to a disk first: {stage}"
        )
    warn_once(
        root / name,
        f"{name!r} is read from {root}: every picture is a request or more, of some 20 "
        "to 50 ms, so that 16 threads read some 320 to 800 a second, and requests are "
        f"paid for in each epoch. To copy it to a disk once: {stage}",
    )


def _content(directory: epath.Path, split: str) -> dict[str, str]:
    """Fingerprints of the splits that a split is made of: "train[:10%]+test"."""
    known = fingerprint(directory) or {}
    named = set(re.findall(r"[\w.-]+", split))
    return {k: v for k, v in known.items() if k in named or "all" in named}


def _find(name: str, root: epath.Path) -> epath.Path | None:
    """Folder of the data set's newest version, or of the one asked for."""
    base, _, version = name.partition(":")
    found = [
        path.parent
        for path in matching(root / base, f"{version or '*'}/dataset_info.json")
        if re.fullmatch(r"\d+\.\d+\.\d+", path.parent.name)
    ]
    return max(found, key=lambda d: [int(n) for n in d.name.split(".")], default=None)


def _not_prepared(name: str, root: epath.Path) -> str:
    infos = [
        *matching(root, "*/*/dataset_info.json"),
        *matching(root, "*/*/*/dataset_info.json"),
    ]
    prepared = sorted(
        f"{i.parents[1].relative_to(root)}:{i.parent.name}" for i in infos
    )
    base = name.partition(":")[0]
    flags = _PREPARE_FLAGS.get(base, f"--folder=<images> --name={base}")
    return (
        f"no data set {name!r} in {root}, which has "
        f"{', '.join(prepared) or 'none'}. To prepare it: python -m "
        f"ser_jax.data.prepare {flags} --data_dir={root}"
    )
