"""Folders in buckets, `gs://` and `s3://`: what `epath` does not do for them.

An object is there whole or not at all, and is replaced as a whole: nothing is appended
to, renamed or mapped into memory, and a folder is but the beginning of names.
"""

import base64
import functools
import importlib.util
import logging
import os
import posixpath
import shutil
from typing import Any

import fsspec
from etils import epath
from fsspec.config import conf

PathLike = str | os.PathLike[str]

# By scheme: the package that reads and writes it, and our extra that installs it.
_CLIENTS = {"gs": ("gcsfs", "gcs"), "s3": ("s3fs", "s3")}
_CHUNK_BYTES = 1 << 24


def scheme_of(path: PathLike) -> str:
    """What stands before "://": "gs", "s3"; "" of a path of this machine."""
    scheme, separator, _ = os.fspath(path).partition("://")
    return scheme if separator else ""


def bucket_path(path: PathLike) -> epath.Path:
    """The path of an object or folder in a bucket. Nothing is asked of the bucket.

    Args:
        path: "gs://bucket/run", "s3://bucket/run".

    Returns:
        The path, without "." and "..".

    Raises:
        ValueError: If it has another scheme, no bucket, or one whose package is not
            installed; says which.
    """
    scheme, _, rest = os.fspath(path).partition("://")
    if scheme not in _CLIENTS:
        raise ValueError(
            f"expected a path of this machine, gs:// or s3://, got {os.fspath(path)!r}"
        )
    if not rest.strip("/") or rest.startswith("/"):
        raise ValueError(
            f"expected {scheme}://BUCKET/FOLDER, got {os.fspath(path)!r}: name a bucket"
        )
    package, extra = _CLIENTS[scheme]
    if importlib.util.find_spec(package) is None:
        raise ValueError(
            f"{scheme}:// needs {package}, which is not installed: "
            f"pip install 'ser_jax[{extra}]'"
        )
    _configure_clients()
    return epath.Path(f"{scheme}://{posixpath.normpath(rest)}")


@functools.cache
def _configure_clients() -> None:
    """Before a client is made, here or in a process that this one starts."""
    os.environ.setdefault("EPATH_USE_TF", "0")  # one client, whatever is installed
    # Else gcsfs asks for every file by gRPC which kind of bucket it is in.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    # Others write there, too: a list that is kept would not show it.
    # What it logs, with pages of tracebacks, it raises too.
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
    for protocol in ("gcs", "s3"):
        conf.setdefault(protocol, {}).update(use_listings_cache=False)


def client(path: PathLike) -> Any:
    """The `fsspec` file system that a path in a bucket is of."""
    return fsspec.filesystem(scheme_of(path))


def checksums(folder: epath.Path) -> dict[str, list[Any]]:
    """What the bucket says of all objects below a folder, none of which is read.

    Args:
        folder: The folder.

    Returns:
        Path below it -> size in bytes, and the bucket's checksum of the content:
        CRC-32C in base64 (gs://), the ETag (s3://).
    """
    root = f"{os.fspath(folder).partition('://')[2]}/"
    found = client(folder).find(os.fspath(folder), detail=True)
    return {
        name.removeprefix(root): [about["size"], about.get("crc32c") or about["ETag"]]
        for name, about in found.items()
        if name.startswith(root)
    }


def upload(file: PathLike, target: epath.Path) -> None:
    """Writes a file of this machine to a bucket; replaced as a whole.

    Args:
        file: The file.
        target: The object.

    Raises:
        OSError: If the bucket has other bytes then.
    """
    out = client(target).open(os.fspath(target), "wb", block_size=_CHUNK_BYTES)
    try:
        with open(file, "rb") as source:
            shutil.copyfileobj(source, out, _CHUNK_BYTES)
    except BaseException:
        out.closed = True  # else what it has until then would become the object
        raise
    out.close()
    _compare(file, target)


def upload_folder(folder: PathLike, target: epath.Path, last: str = "") -> None:
    """Writes all files of a folder of this machine to a bucket.

    Args:
        folder: The folder.
        target: The folder in the bucket.
        last: Name of a file whose being there says that all are.
    """
    files = (
        os.path.join(place, name)
        for place, _, names in os.walk(folder)
        for name in names
    )
    for file in sorted(files, key=lambda f: (os.path.basename(f) == last, f)):
        upload(file, target / os.path.relpath(file, folder))


def download(source: epath.Path, file: PathLike) -> None:
    """Reads an object into a file of this machine.

    Args:
        source: The object.
        file: The file; replaced.

    Raises:
        OSError: If other bytes arrived.
    """
    client(source).get_file(os.fspath(source), os.fspath(file))
    _compare(file, source)


def _compare(file: PathLike, other: epath.Path) -> None:
    """Raises unless a file is what the bucket says of an object.

    An ETag is an MD5 of small objects alone, and not of encrypted ones: of s3:// only
    the sizes are compared.
    """
    about = client(other).info(os.fspath(other))
    found: list[Any] = [os.stat(file).st_size]
    expected: list[Any] = [about["size"]]
    if scheme_of(other) == "gs":
        found.append(_crc32c(file))
        expected.append(about["crc32c"])
    if found != expected:
        raise OSError(
            f"{other} is not what was copied: expected size and CRC-32C {expected}, "
            f"found {found}. Run the same command again"
        )


def _crc32c(file: PathLike) -> str:
    import google_crc32c  # comes with gcsfs

    checksum = google_crc32c.Checksum()
    with open(file, "rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            checksum.update(chunk)
    return base64.b64encode(checksum.digest()).decode()


def move(source: epath.Path, target: epath.Path) -> None:
    """Moves an object, or all that is below a folder, within a bucket.

    Not at once: an end in between leaves both, the source whole or in part.

    Args:
        source: The object or folder.
        target: Its new name; nothing is there yet.
    """
    files = client(source)
    below = checksums(source)
    pairs = [(source / name, target / name) for name in below] or [(source, target)]
    for old, new in pairs:
        files.cp_file(os.fspath(old), os.fspath(new))
    for old, _ in pairs:
        files.rm_file(os.fspath(old))


def conditional(folder: epath.Path) -> Any:
    """A `tensorstore.KvStore` of a folder: objects that are written if unchanged.

    Args:
        folder: The folder.

    Returns:
        The store; the keys are paths below the folder.
    """
    import tensorstore  # slow to import, and needed of buckets alone

    scheme, _, rest = os.fspath(folder).partition("://")
    bucket, _, path = rest.partition("/")
    driver = {"gs": "gcs", "s3": "s3"}[scheme]
    retries = {"max_retries": 5, "max_delay": "2s"}  # else a missing network: minutes
    spec = {
        "driver": driver,
        "bucket": bucket,
        "path": f"{path}/" if path else "",
        "context": {f"{driver}_request_retries": retries},
    }
    if scheme == "s3" and (endpoint := os.environ.get("AWS_ENDPOINT_URL")):
        region = os.environ.get("AWS_DEFAULT_REGION", "us-east-1")
        spec |= {"endpoint": endpoint, "aws_region": region}
    return tensorstore.KvStore.open(spec).result()
