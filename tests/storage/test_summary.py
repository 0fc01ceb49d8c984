"""The end of a run: valid JSON, an aligned table, curves that show what was written."""

import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

from ser_jax.storage import summary
from ser_jax.storage.runs import read_runs


def test_summary_is_plain_json_and_replaced_as_a_whole(tmp_path):
    (tmp_path / "summary.json").write_text("old")
    (tmp_path / "seen_by_a_reader").hardlink_to(tmp_path / "summary.json")
    values = {
        "steps": 3,
        "loss": jnp.float32(0.5),
        "probe": {"knn": np.float64(0.25), "linear": math.nan},
        "sizes": (1, math.inf),
    }
    path = summary.write_summary(tmp_path, values, {"optim": {"lr": 0.1}})
    assert path == tmp_path / "summary.json"
    assert json.loads(path.read_text()) == {
        "steps": 3,
        "loss": 0.5,
        "probe": {"knn": 0.25, "linear": None},
        "sizes": [1, None],
        "config": {"optim": {"lr": 0.1}},
    }
    assert (tmp_path / "seen_by_a_reader").read_text() == "old"
    assert not list(tmp_path.glob(".*.partial"))


def test_a_summary_that_fails_leaves_the_old_one(tmp_path):
    (tmp_path / "summary.json").write_text("old")
    with pytest.raises(TypeError, match="not JSON serializable"):
        summary.write_summary(tmp_path, {"a": object()}, {})
    assert (tmp_path / "summary.json").read_text() == "old"


@pytest.mark.parametrize(
    "content",
    [
        *(
            b"null",
            b"[]",
            b"7",
            b"",
            b'{"steps": 4, ',
            b"\xff",
            b"\0" * 9,
            b"[" * 10**5,
        ),
        *(b'{"steps": "4"}', b'{"steps": 4.0}', b'{"steps": null}', b'{"steps": true}'),
        *(b'{"config": null}', b'{"config": []}', b'{"config": "a"}'),
        *(b'{"accounting": [1]}', b'{"device": 3}'),
    ],
)
def test_a_damaged_summary_is_of_a_run_that_has_not_ended(tmp_path, content, caplog):
    path = tmp_path / "summary.json"
    assert summary.read_summary(tmp_path) is None and not caplog.messages
    path.write_bytes(content)
    (tmp_path / "metrics.jsonl").write_text('{"step": 4, "loss": 1.0}\n')
    assert summary.read_summary(tmp_path) is None
    (run,) = read_runs([tmp_path])
    assert not run.is_finished and run.last_step == 4 and run.summary == {}
    (told,) = caplog.messages
    assert str(path) in told and "has not ended" in told


def test_table():
    values = {"steps": 1000, "probe": {"knn": np.float32(1 / 3)}, "device": "cpu"}
    assert summary.final_table(values).splitlines() == [
        "| metric    |   value |",
        "|-----------|--------:|",
        "| steps     |    1000 |",
        "| probe/knn | 0.33333 |",
        "| device    |     cpu |",
    ]
