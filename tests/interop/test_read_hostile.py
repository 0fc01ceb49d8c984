"""Hostile files: read right or refused in one line, soon, in little memory."""

import os
import re
import subprocess
import sys
import time

import pytest
from helpers import ROOT, hostile_files, hostile_pickles

from ser_jax.interop.files.read import read_weights_file
from ser_jax.interop.files.refused import RefusedFileError

MOST_S = 5.0  # under 1 each where nothing else runs; a bomb takes minutes
MOST_BYTES = 200e6
GROUPS = {
    "pickle": hostile_pickles.pickles,
    "endless": hostile_pickles.endless_pickles,
    "zip": hostile_files.zips,
    "legacy": hostile_files.legacies,
    "header": hostile_files.headers,
    "other": hostile_files.others,
}


@pytest.mark.parametrize("group", GROUPS)
def test_refused(group, tmp_path, monkeypatch):
    """Red if a file is read, or refused for another reason, or in more than a line."""
    monkeypatch.chdir(tmp_path)
    for name, (data, said) in GROUPS[group]().items():
        path = tmp_path / name
        path.write_bytes(data)
        began = time.process_time()
        with pytest.raises(RefusedFileError) as error:
            read_weights_file(path)
        assert time.process_time() - began < MOST_S, name
        assert re.search(said, error.value.reason), (name, error.value.reason)
        message = str(error.value)
        assert message.startswith(f"{name}: ") and message.isprintable(), name
        assert len(message) < 400, name
        path.unlink()
    assert os.listdir(tmp_path) == [], "something was run"


def test_strange_and_read(tmp_path):
    for name, data in hostile_pickles.read_right().items():
        path = tmp_path / name
        path.write_bytes(data)
        began = time.process_time()
        assert read_weights_file(path).content is not None
        assert time.process_time() - began < MOST_S, name


@pytest.mark.slow
def test_memory_and_imports(tmp_path):
    """Red if reading any of them takes 200 MB, or imports what it names."""
    for name, data in hostile_files.everything().items():
        (tmp_path / name).write_bytes(data)
    program = """
import os, re, sys
from ser_jax.interop.files.read import read_weights_file
from ser_jax.interop.files.refused import RefusedFileError

def peak():  # getrusage's is its parent's, if that is more
    with open("/proc/self/status") as status:
        return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", status.read())[1])

before, modules, most = peak(), set(sys.modules), (0, "")
assert "torch" not in modules and "jax" not in modules
for name in sorted(os.listdir(sys.argv[1])):
    try:
        read_weights_file(os.path.join(sys.argv[1], name))
    except RefusedFileError:
        pass
    if peak() - before > most[0]:
        most = peak() - before, name
named = {"a", "torch", "subprocess", "torch.nn"}
assert not named & (set(sys.modules) - modules), named & set(sys.modules)
print(*most)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    num_bytes, name = done.stdout.split()
    assert int(num_bytes) < MOST_BYTES, name
    assert not (tmp_path / "made").exists()
