"""Files, locks and data sets on s3://, as moto serves it."""

import boto3
import pytest
from moto.server import ThreadedMotoServer

from ser_jax.data.digits import write_digits
from ser_jax.data.sources import open_source
from ser_jax.data.stage import stage
from ser_jax.storage import lease
from ser_jax.storage.bucket import checksums, upload_folder
from ser_jax.storage.files import as_path, matching, move, write_text
from ser_jax.storage.lock import only_writer


@pytest.fixture(scope="module")
def root():
    """A bucket, until the tests of this file are over."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "x")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "x")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        boto3.client("s3").create_bucket(Bucket="bucket")
        yield as_path("s3://bucket/run")
    server.stop()


def test_files_are_written_listed_and_moved(root):
    write_text(root / "x" / "a", "1")
    write_text(root / "x" / "a", "2")
    move(root / "x", root / "y")
    assert matching(root, "*/*") == [root / "y" / "a"]
    assert (root / "y" / "a").read_text() == "2\n"
    assert checksums(root)["y/a"][0] == 2


def test_one_process_writes(root, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_S", 0.05)
    monkeypatch.setattr(lease, "_POLL_S", 0.02)
    with only_writer(root) as check:
        with pytest.raises(OSError, match="is being written to by process"):
            with only_writer(root):
                pass
        check()
    assert not (root / ".lock").exists()


def test_a_data_set_is_copied_to_a_disk_and_not_read_there(root, tmp_path):
    write_digits(as_path(tmp_path / "here"))
    upload_folder(tmp_path / "here", root / "data")
    with pytest.raises(ValueError, match="python -m ser_jax.data.stage --source=s3://"):
        open_source("digits", "train", root / "data")
    stage(root / "data", tmp_path / "copy")
    here, copy = (
        open_source("digits", "test", tmp_path / name) for name in ("here", "copy")
    )
    assert copy[3] == here[3]
