"""Files in buckets: whole, verified, moved, appended to never."""

import gc
import os
import shutil

import pytest
from etils import epath

from ser_jax.storage import bucket as buckets
from ser_jax.storage.files import (
    as_path,
    growing_file,
    is_within,
    matching,
    move,
    num_bytes,
    read_json,
    refuse_unwritable,
    whole_file,
    whole_folder,
    write_json,
    write_text,
)


@pytest.fixture
def root(bucket):
    return as_path(f"gs://{bucket}/run")


def test_a_file_is_there_whole_or_not_at_all(root, bucket, bucket_server):
    path = write_text(root / "a.txt", "old")
    with pytest.raises(RuntimeError, match="full"), whole_file(path) as stream:
        stream.write(b"new")
        raise RuntimeError("the disk is full")
    assert path.read_text() == "old\n"
    assert num_bytes(path) == 4
    assert read_json(write_json(root / "b.json", {"a": 1})) == {"a": 1}
    with growing_file(root / "log") as stream:
        os.write(stream.fileno(), b"text")
    assert (root / "log").read_bytes() == b"text"
    refuse_unwritable(root)
    assert bucket_server.names(bucket) == [
        f"{bucket}/run/{name}" for name in ("a.txt", "b.json", "log")
    ]


def test_an_upload_that_is_interrupted_changes_nothing(root, tmp_path, monkeypatch):
    path = write_text(root / "a", "old")
    (tmp_path / "new").write_text("new, and longer")

    def stop(source, out, size):
        out.write(source.read(3))
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "copyfileobj", stop)
    with pytest.raises(KeyboardInterrupt):
        buckets.upload(tmp_path / "new", path)
    gc.collect()
    assert path.read_text() == "old\n"


def test_folders_are_written_listed_and_moved(root):
    with whole_folder(root / "x") as folder:
        write_text(folder / "a", "1")
        (folder / "sub").mkdir()
        write_text(folder / "sub" / "b", "2")
    with pytest.raises(FileExistsError), whole_folder(root / "x"):
        pass
    assert matching(root, "*/a*") == [root / "x" / "a"]
    assert buckets.checksums(root)["x/sub/b"][0] == 2
    move(root / "x", root / "y" / "z")
    assert not (root / "x").exists()
    assert (root / "y" / "z" / "sub" / "b").read_text() == "2\n"
    move(root / "y" / "z" / "a", root / "a")
    assert sorted(buckets.checksums(root)) == ["a", "y/z/sub/b"]
    assert is_within(root / "a", root) and not is_within(root / "../a", root)


def test_a_list_of_many_pages_is_read_to_its_end(root):
    for name in "abcdefg":
        write_text(root / name / "file", name)
    assert [path.name for path in matching(root, "*")] == list("abcdefg")
    assert len(buckets.checksums(root)) == 7


def test_what_arrives_is_compared_with_the_checksum(root, tmp_path, monkeypatch):
    path = write_text(root / "a", "1")
    buckets.download(path, tmp_path / "a")
    assert (tmp_path / "a").read_text() == "1\n"
    get = buckets.client(path).get_file

    def damaging(source, file):
        get(source, file)
        epath.Path(file).write_text("2\n")

    monkeypatch.setattr(buckets.client(path), "get_file", damaging)
    with pytest.raises(OSError, match="is not what was copied"):
        buckets.download(path, tmp_path / "b")
