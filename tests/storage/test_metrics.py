"""Metric files: valid JSON, readable by TensorBoard, cut back on resume."""

import json
import math
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from tensorboard.backend.event_processing import event_accumulator

from ser_jax.storage.metrics import MetricWriter, read_curves, read_metrics


def write(workdir, steps, **options):
    writer = MetricWriter(workdir, **options)
    for step in steps:
        writer.write_scalars(step, {"loss": 10.0 - step})
    writer.close()


def events(workdir):
    accumulator = event_accumulator.EventAccumulator(str(workdir))
    accumulator.Reload()
    return accumulator


def test_rows_are_on_disk_at_once(tmp_path):
    writer = MetricWriter(tmp_path / "run")
    writer.write_scalars(5, {"loss": np.float32(0.5), "lr": jnp.float32(0.25)})
    (row,) = read_metrics(tmp_path / "run")
    writer.close()
    assert row.pop("wall_time") > 1.7e9
    assert row == {"step": 5, "loss": 0.5, "lr": 0.25}


def test_values_that_are_not_finite_stay_valid_json(tmp_path):
    writer = MetricWriter(tmp_path)
    writer.write_scalars(1, {"a": math.nan, "b": math.inf, "c": 1.0})
    writer.close()

    def refuse(constant):
        raise AssertionError(constant)

    text = (tmp_path / "metrics.jsonl").read_text()
    row = json.loads(text, parse_constant=refuse)
    assert (row["a"], row["b"], row["c"]) == (None, None, 1.0)
    assert math.isnan(read_metrics(tmp_path)[0]["a"])
    assert math.isinf(events(tmp_path).Scalars("b")[0].value)


def test_resuming_drops_what_will_be_written_again(tmp_path):
    write(tmp_path, [1, 2, 3, 4])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3, 4]
    write(tmp_path, [3, 4, 5], start_step=2)
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3, 4, 5]
    assert [e.step for e in events(tmp_path).Scalars("loss")] == [1, 2, 3, 4, 5]
    assert not list(tmp_path.glob(".*.partial"))


ODD_ROWS = [
    *(b"no json", b"[1, 2]", b"null", b"7", b'"step"', b"", b"{", b"[" * 100_000),
    *(b'{"loss": 1.0}', b'{"step": "3"}', b'{"step": -1}', b'{"step": 3.5}'),
    *(b'{"step": true}', b'{"step": null}', b'{"step": [3]}', b'{"step": NaN}'),
    *(b'{"step": 1' + b"0" * 30 + b"}", b'{"step": 9007199254740993}'),
    *(b'{"step": 3, "loss": "1.0"}', b'{"step": 3, "loss": [1.0]}'),
    *(b'{"step": 3, "loss": {"a": 1}}', b'{"step": 3, "loss": false}'),
    *(b'{"step": 3, "wall_time": "now"}', b"\xff\xfe{}", b"\0" * 40),
    b'{"step": 3, \0"loss": 1.0}',
]


@pytest.mark.parametrize("odd", ODD_ROWS)
def test_a_row_that_is_none_is_left_out(tmp_path, odd, caplog):
    """Red if it ends the reading, is in the way of resuming, or is not told of."""
    write(tmp_path, [1, 2])
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + odd + b"\n" + b'{"step": 4, "loss": 6.0}\n')
    for _ in range(2):
        assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 4]
        assert read_curves(tmp_path)["loss"].tolist() == [[1, 9], [2, 8], [4, 6]]
    (told,) = caplog.messages
    assert f"{path}: 1 of 4 rows are left out; the first is line 3: " in told
    write(tmp_path, [3], start_step=2)
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3]


def test_values_that_are_no_numbers_of_json_are_not_finite(tmp_path):
    """What other writers make of NaN; and it is valid JSON after resuming."""
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"step": 1, "a": NaN, "b": -Infinity, "c": 1e999, "d": 1' + "0" * 400 + "}\n"
    )
    (row,) = read_metrics(tmp_path)
    assert not any(math.isfinite(row[name]) for name in "abcd"[:3])
    write(tmp_path, [2], start_step=1)
    assert "NaN" not in path.read_text() and "Infinity" not in path.read_text()


def test_rows_out_of_order_and_twice(tmp_path):
    write(tmp_path, [3, 1, 2])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "loss": 0.5}\n')
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 2, 3]
    assert read_curves(tmp_path)["loss"].tolist() == [[1, 9], [2, 0.5], [3, 7]]


def test_no_row_and_no_file(tmp_path):
    (tmp_path / "metrics.jsonl").touch()
    assert read_metrics(tmp_path) == [] and read_curves(tmp_path) == {}
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(OSError, match="metrics.jsonl"):
        read_metrics(tmp_path)


def test_a_fresh_start_forgets_an_aborted_run(tmp_path):
    write(tmp_path, [0, 1])
    write(tmp_path, [0, 1])
    assert [row["step"] for row in read_metrics(tmp_path)] == [0, 1]


def test_text_reaches_tensorboard(tmp_path):
    writer = MetricWriter(tmp_path)
    writer.write_text("config", "lr: 0.1")
    writer.close()
    (event,) = events(tmp_path).Tensors("config/text_summary")
    assert event.tensor_proto.string_val == [b"lr: 0.1"]


def test_other_processes_write_nothing(tmp_path):
    writer = MetricWriter(tmp_path, is_primary=False)
    writer.write_scalars(1, {"loss": 1.0})
    writer.write_text("config", "")
    writer.close()
    assert not list(tmp_path.iterdir())
    assert read_metrics(tmp_path) == []


def test_an_installed_tensorflow_is_not_imported(tmp_path):
    (tmp_path / "tensorflow.py").write_text("raise SystemExit('was imported')")
    script = (
        "from ser_jax.storage.metrics import MetricWriter;"
        "w = MetricWriter('run'); w.write_scalars(1, {'a': 1.0}); w.close()"
    )
    subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "JAX_PLATFORMS": "cpu"},
        check=True,
    )
