"""Files are whole or not there; paths are what the user meant."""

import errno
import importlib.util
import json
import math
import os

import numpy as np
import pytest

from ser_jax.storage.files import (
    as_path,
    local_path,
    matching,
    parse_object,
    whole_file,
    write_json,
    write_text,
)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = write_text(tmp_path / "a.txt", "old")
    with pytest.raises(RuntimeError, match="full"), whole_file(path) as stream:
        stream.write(b"new")
        raise RuntimeError("the disk is full")
    assert path.read_text() == "old\n"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_disk_that_is_full_names_the_file(tmp_path):
    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}/a.txt'"):
        with whole_file(tmp_path / "a.txt"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert os.listdir(tmp_path) == []


def test_a_reader_never_sees_half_a_file(tmp_path):
    path = tmp_path / "a.txt"
    with whole_file(path) as stream:
        stream.write(b"half")
        assert not path.exists()
    assert path.read_text() == "half"


def test_json_holds_what_json_can(tmp_path):
    content = {"a": np.float32(0.5), "b": [math.nan, (1, math.inf)], 3: {"c": None}}
    path = write_json(tmp_path / "a.json", content)
    assert json.loads(path.read_text()) == {
        "a": 0.5,
        "b": [None, [1, None]],
        "3": {"c": None},
    }


def test_paths_are_absolute_and_home_is_known(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    assert os.fspath(as_path("runs/../run")) == str(tmp_path / "run")
    assert os.fspath(as_path("~/run")) == "/home/someone/run"
    assert as_path(tmp_path) == as_path(str(tmp_path))


@pytest.mark.parametrize(
    ("path", "missing", "message"),
    [
        ("gs://bucket/run", "gcsfs", r"pip install 'ser_jax\[gcs\]'"),
        ("s3://bucket", "s3fs", r"pip install 'ser_jax\[s3\]'"),
        ("file:///run", "", "this machine, gs:// or s3://"),
        ("gs:///run", "", "name a bucket"),
    ],
)
def test_what_cannot_be_read_here_is_refused_and_no_folder_of_its_name_made(
    path, missing, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: None if name == missing else find(name),
    )
    with pytest.raises(ValueError, match=message):
        as_path(path)
    assert not os.listdir(tmp_path)


def test_paths_in_buckets_are_whole_urls():
    path = as_path("gs://bucket/runs/../run")
    assert os.fspath(path / "a") == "gs://bucket/run/a"
    assert as_path(path) == path
    with pytest.raises(ValueError, match="Copy it to a disk"):
        local_path(path)


def test_brackets_in_a_folders_name_are_no_pattern(tmp_path):
    folder = tmp_path / "my data [v2]"
    (folder / "b").mkdir(parents=True)
    (folder / "a").mkdir()
    (folder / "a" / "x.json").touch()
    (folder / "b" / "x.json").touch()
    (folder / "b" / "y.json").touch()
    found = [os.fspath(path) for path in matching(folder, "*/x*.json")]
    assert found == [f"{folder}/a/x.json", f"{folder}/b/x.json"]
    assert matching(tmp_path / "nothing", "*") == []


def test_what_is_not_wanted_of_json_is_left_out_at_any_depth():
    data = b'{"a": [{"b": [1, 2], "c": 3}, {"b": {}}], "b": 4}'
    assert parse_object(data, without=("b",)) == {"a": [{"c": 3}, {}]}
    assert parse_object(data)["b"] == 4
