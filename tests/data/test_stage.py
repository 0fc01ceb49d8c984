"""Data sets in buckets: written, read where they are, copied to a disk."""

import shutil

import numpy as np
import pytest
from etils import epath

from ser_jax.data import stage as staging
from ser_jax.data.digits import write_digits
from ser_jax.data.fingerprint import fingerprint
from ser_jax.data.sources import open_source
from ser_jax.data.stage import stage
from ser_jax.storage.files import as_path


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A data folder on a disk, with digits."""
    root = as_path(tmp_path_factory.mktemp("data"))
    write_digits(root)
    return root


@pytest.fixture
def data(bucket, written):
    """The same in a bucket."""
    root = as_path(f"gs://{bucket}/data")
    for path in (written / "digits" / "1.0.0").iterdir():
        (root / "digits" / "1.0.0" / path.name).write_bytes(path.read_bytes())
    return root


def labels(source):
    return [source[i]["label"] for i in range(0, len(source), 40)]


def test_a_set_is_written_to_a_bucket_and_read_there(
    bucket, written, bucket_server, caplog
):
    root = as_path(f"gs://{bucket}/new")
    arrived = []
    bucket_server.before_write.append(arrived.append)
    source, local = (open_source("digits", "train", x) for x in (root, written))
    bucket_server.before_write.clear()
    assert arrived[-1] == f"{bucket}/new/digits/1.0.0/dataset_info.json"
    assert source.fingerprint == local.fingerprint
    assert source.content == local.content
    assert labels(source) == labels(local)
    assert "data.stage --source=gs://" in caplog.text


def test_another_programs_set_is_known_by_its_checksums(data):
    place = data / "digits" / "1.0.0"
    (place / "fingerprint.json").unlink()
    before = fingerprint(place)
    assert before["train"].startswith("files:")
    (shard,) = place.glob("digits-train*")
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    after = fingerprint(place)
    assert before["train"] != after["train"] and before["test"] == after["test"]


def test_a_set_is_copied_to_a_disk_whole_and_once(
    data, written, tmp_path, bucket_server, capsys
):
    stage(data, tmp_path, ("digits",))
    for path in (written / "digits" / "1.0.0").iterdir():
        copy = tmp_path / "digits" / "1.0.0" / path.name
        assert copy.read_bytes() == path.read_bytes()
    assert "GB" in capsys.readouterr().err
    source = open_source("digits", "train", tmp_path)
    assert labels(source) == labels(open_source("digits", "train", written))

    shard = next((tmp_path / "digits" / "1.0.0").glob("*train*"))
    shard.write_bytes(shard.read_bytes()[:-1])
    bucket_server.requests.clear()
    stage(data, tmp_path)
    read = [r for r in bucket_server.requests if "alt=media" in r]
    assert len(read) == 1 and shard.name in read[0]


def test_what_arrives_damaged_gets_no_name(data, tmp_path, monkeypatch):
    download = staging.download

    def fail(source, file):
        if "train" in source.name:
            epath.Path(file).write_text("half")
            raise OSError("is not what was copied")
        download(source, file)

    monkeypatch.setattr(staging, "download", fail)
    with pytest.raises(OSError, match="is not what was copied"):
        stage(data, tmp_path)
    names = [path.name for path in (tmp_path / "digits" / "1.0.0").iterdir()]
    assert not [name for name in names if "train" in name or "partial" in name]
    assert "dataset_info.json" not in names


def test_what_cannot_be_copied_is_refused(data, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="expected --source=gs://"):
        stage(tmp_path, tmp_path / "x")
    with pytest.raises(ValueError, match="not read from a bucket"):
        stage(data, data)
    with pytest.raises(FileNotFoundError, match="no data set cifar10 in gs://"):
        stage(data, tmp_path, ("cifar10",))
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _: np.rec.array((1, 1, 0), names="total,used,free")
    )
    with pytest.raises(OSError, match="no space: 0.0 GB are to be copied"):
        stage(data, tmp_path)
    assert not list(epath.Path(tmp_path).iterdir())
