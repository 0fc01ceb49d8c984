"""Writes a TFDS data set as shuffled ArrayRecord shards, without TensorFlow.

TFDS has a writer, but needs TensorFlow for more than 1 GB; its serializer and metadata
do not and are used here.
"""

import contextlib
import dataclasses
import hashlib
import io
import os
import pickle
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from etils import epath
from PIL import Image

from ser_jax.data.fingerprint import write_fingerprint
from ser_jax.storage.bucket import scheme_of, upload_folder
from ser_jax.storage.files import as_path

SHARD_BYTES = 256 * 2**20
# Each shard in the making is an open file; the usual limit is 1024.
MAX_SHARDS = 900
_LAST = "dataset_info.json"  # without it there is no data set


@dataclasses.dataclass(frozen=True)
class Split:
    """The examples of one split.

    Attributes:
        examples: (key, example) pairs. The key, unique in the split, decides where the
            example lands.
        num_bytes: Rough size of them all; sets the number of shards.
    """

    examples: Iterable[tuple[str, dict[str, Any]]]
    num_bytes: int = 0


@contextlib.contextmanager
def staged(final_dir: epath.Path) -> Iterator[epath.Path]:
    """A folder to fill, which becomes `final_dir` at the end of the `with` block.

    Nothing appears at `final_dir` before it is complete, and after an error nothing is
    left. If another process finished the same data set meanwhile, that one stays.

    Args:
        final_dir: `<data_dir>/<name>/<version>`.

    Yields:
        An empty folder on the same file system, hidden in `data_dir`; of a bucket, one
        among this machine's temporary files.
    """
    if scheme_of(final_dir):
        with tempfile.TemporaryDirectory() as scratch:
            yield as_path(scratch)
            if not (final_dir / _LAST).exists():
                upload_folder(scratch, final_dir, last=_LAST)
        return
    version, name, data_dir = (
        final_dir.name,
        final_dir.parent.name,
        final_dir.parents[1],
    )
    data_dir.mkdir(parents=True, exist_ok=True)
    staging_dir = as_path(tempfile.mkdtemp(prefix=f".{name}-{version}-", dir=data_dir))
    try:
        work_dir = staging_dir / version
        work_dir.mkdir()  # its own folder: mkdtemp's is closed to other users
        yield work_dir
        final_dir.parent.mkdir(exist_ok=True)
        try:
            work_dir.rename(final_dir)
        except OSError:
            if not (final_dir / _LAST).exists():
                raise
    finally:
        shutil.rmtree(staging_dir)


def write_splits(
    directory: epath.Path,
    name: str,
    version: str,
    features: tfds.features.FeaturesDict,
    splits: Mapping[str, Split],
) -> None:
    """Writes all shards, the TFDS metadata and the fingerprint of the content.

    Args:
        directory: Where to write; see `staged`.
        name: TFDS name of the data set.
        version: TFDS version, "x.y.z".
        features: TFDS features of an example; images are given encoded, as bytes.
        splits: Split name -> examples.

    Raises:
        ValueError: If a split has no examples.
    """
    infos, digests = [], {}
    for split_name, split in splits.items():
        template = tfds.core.ShardedFileTemplate(
            data_dir=directory,
            dataset_name=name,
            split=split_name,
            filetype_suffix="array_record",
        )
        info, digests[split_name] = _write_split(template, features, split)
        infos.append(info)
    tfds.folder_dataset.write_metadata(
        data_dir=directory,
        features=features,
        version=version,
        split_infos=infos,
        check_data=False,  # TFDS would check with TensorFlow
    )
    write_fingerprint(directory, digests)


def _write_split(
    template: tfds.core.ShardedFileTemplate,
    features: tfds.features.FeaturesDict,
    split: Split,
) -> tuple[tfds.core.SplitInfo, str]:
    """Deals the examples into buckets by hash, then turns each into a sorted shard.

    Returns what TFDS notes of the split, and the digest of its content.
    """
    num_buckets = min(MAX_SHARDS, 1 + split.num_bytes // SHARD_BYTES)
    num_bytes = 0
    with contextlib.ExitStack() as stack:
        buckets = [
            stack.enter_context(tempfile.TemporaryFile(dir=template.data_dir))
            for _ in range(num_buckets)
        ]
        for key, example in split.examples:
            key_hash = hashlib.blake2b(key.encode(), digest_size=8).digest()
            order = int.from_bytes(key_hash)
            record = features.serialize_example(example)
            num_bytes += len(record)
            content = _content(features, example)
            pickle.dump((order, content, record), buckets[order % num_buckets])
        buckets = [bucket for bucket in buckets if bucket.tell()]
        if not buckets:
            raise ValueError(f"split {template.split!r} has no examples to write")
        shard_lengths, digest = [], hashlib.sha256()
        for index, bucket in enumerate(buckets):
            path = template.sharded_filepath(shard_index=index, num_shards=len(buckets))
            shard_lengths.append(_write_shard(path, bucket, digest))
            bucket.close()  # frees its space on disk
    info = tfds.core.SplitInfo(
        name=template.split,
        shard_lengths=shard_lengths,
        num_bytes=num_bytes,
        filename_template=template,
    )
    return info, digest.hexdigest()


def _content(features: tfds.features.FeaturesDict, example: dict[str, Any]) -> bytes:
    """Digest of one example's encoded image and labels."""
    digest = hashlib.sha256(example["image"])
    for name in sorted(example):
        if isinstance(features[name], tfds.features.ClassLabel):
            digest.update(
                f"{name}={features[name].encode_example(example[name])}".encode()
            )
    return digest.digest()


def _write_shard(path: os.PathLike[str], bucket: Any, digest: Any) -> int:
    """Writes one ArrayRecord file; the contents enter the digest, in their order.

    Returns the number of records.
    """
    end = bucket.tell()
    bucket.seek(0)
    records = []
    while bucket.tell() < end:
        records.append(pickle.load(bucket))
    # One record a group, for random access; images are compressed already.
    writer = array_record_module.ArrayRecordWriter(
        os.fspath(path), "group_size:1,uncompressed"
    )
    for _, content, record in sorted(records):
        digest.update(content)
        writer.write(record)
    writer.close()
    return len(records)


def encode_png(image: np.ndarray) -> bytes:
    """The image as PNG.

    Args:
        image: Pixels, `[h, w, 3]` or `[h, w]`, uint8.

    Returns:
        The encoded bytes.
    """
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()
