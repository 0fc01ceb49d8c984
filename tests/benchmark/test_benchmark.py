"""The benchmark on a tiny experiment: every figure, the table, the file."""

import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import pytest
from helpers.support import tiny_config, tiny_experiment

from ser_jax.benchmark import figures as benchmark
from ser_jax.benchmark import step as speed
from ser_jax.benchmark import tables as benchmark_report
from ser_jax.train.chips import Chip, chip
from ser_jax.train.experiment import build
from ser_jax.train.sharding import make_mesh

ROOT = pathlib.Path(__file__).parents[2]
KEYS = {
    "flops_per_step_base",
    "flops_per_step_ser",
    "flops_ratio",
    "step_s_base",
    "step_s_ser",
    "step_ratio",
    "images_per_s",
    "mfu",
    "peak_memory_bytes",
    "compile_s",
    "loader_images_per_s",
}


@pytest.mark.slow
def test_steps_are_timed_and_their_memory_is_planned(monkeypatch):
    one_device = make_mesh(jax.devices()[:1])  # sharded programs take longer to compile
    monkeypatch.setattr(benchmark, "make_mesh", lambda: one_device)
    experiment = tiny_experiment(regularizer="none", **{"model.depth": 1})
    figures = benchmark.measure_steps(experiment, experiment, num_steps=3)
    assert (
        figures["step_s_p10_ser"] <= figures["step_s_ser"] <= figures["step_s_p90_ser"]
    )
    assert figures["step_ratio"] == figures["step_s_ser"] / figures["step_s_base"]
    assert figures["images_per_s"] == 16 / figures["step_s_ser"]
    assert figures["compile_s"] > 0
    assert figures["peak_memory_source"].startswith("planned")
    # Weights, EMA weights and two moments at least
    state = jax.eval_shape(experiment.init_state, experiment.init_rng)
    assert figures["peak_memory_bytes"] > sum(
        x.size * x.dtype.itemsize for x in jax.tree.leaves(state)
    )


@pytest.mark.slow
def test_all_figures_are_put_together(tmp_path, monkeypatch):
    names = ("step_s_base", "step_s_ser", "step_ratio", "images_per_s")
    names += ("peak_memory_bytes", "compile_s")
    measured = dict.fromkeys(names, 2.0)
    monkeypatch.setattr(benchmark, "measure_steps", lambda *_: measured)
    config = tiny_config("simclr", **{"dataset.data_dir": str(tmp_path)})
    config.model.depth = 1  # there is less to count
    figures = benchmark.measure(build(config, 1000), loader_seconds=0.05)
    assert KEYS <= figures.keys()
    assert figures["mfu"] is None  # a CPU's peak is not in the table
    assert all(figures[key] > 0 for key in KEYS - {"mfu"})
    table = benchmark_report.step_table(figures)
    assert re.search(r"\| step, median s +\| +2 \| +2 \| 2.0000 \|", table)
    assert "loader alone" in table and "MFU" not in table


def test_utilization_is_over_the_peak_of_all_devices(monkeypatch):
    figures = dict.fromkeys(("flops_per_step_ser", "flops_per_step_base"), 8e9)
    figures |= {"step_s_ser": 2.0, "step_s_base": 1.0}
    assert benchmark.utilization(figures) == {}
    monkeypatch.setattr(benchmark, "chip", lambda _: Chip(1e9, 1e9))
    assert jax.device_count() == 8
    assert benchmark.utilization(figures) == {"mfu": 0.5, "mfu_base": 1.0}


def test_missing_data_leaves_the_loader_out():
    config = tiny_config(
        **{"dataset.name": "imagenet2012", "dataset.data_dir": "/none"}
    )
    figures = benchmark.measure_loader(build(config, 1000), seconds=0.1)
    assert figures.keys() == {"loader_note"}
    assert "imagenet2012" in figures["loader_note"]


@pytest.mark.slow
def test_command_line_counts_without_data_and_writes_the_file(tmp_path):
    path = tmp_path / "figures.json"
    command = [sys.executable, "-m", "ser_jax.benchmark", "--flops_only"]
    command += ["--config=configs/digits_ser.py", f"--json={path}", "--batch_size=32"]
    command += ["--config.model.depth=2", "--config.regularizer.layer=1"]
    env = {k: v for k, v in os.environ.items() if k != "JAX_PLATFORMS"}
    done = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )
    assert "Unable to initialize backend" not in done.stderr  # a TPU that is not there
    figures = json.loads(path.read_text())
    assert KEYS | {"device", "date", "jax_version", "command"} <= figures.keys()
    assert figures["batch_size"] == 32
    assert figures["flops_ratio"] > 1
    assert figures["step_s_ser"] is None
    assert "| FLOPs, jaxpr " in done.stdout
    assert "Counting" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["figures.json"]


@pytest.mark.slow
def test_a_base_is_measured_alone_and_without_data(monkeypatch):
    one_device = make_mesh(jax.devices()[:1])
    monkeypatch.setattr(benchmark, "make_mesh", lambda: one_device)
    monkeypatch.setattr(benchmark, "chip", lambda _: Chip(1e9, 1e9))
    absent = {"dataset.name": "imagenet2012", "dataset.data_dir": "/none"}
    experiment = tiny_experiment(regularizer="none", **{"model.depth": 1} | absent)
    figures = benchmark.measure(experiment, num_steps=2)
    null = {key for key in KEYS if figures[key] is None}
    assert null == {
        *("flops_per_step_ser", "flops_ratio", "step_s_ser", "step_ratio"),
        "loader_images_per_s",
    }
    assert not [key for key in figures if key.endswith("_ser") and key not in KEYS]
    assert figures["flops_per_step_base_by_hand"] == figures["flops_per_step_base"]
    assert figures["images_per_s"] == 16 / figures["step_s_base"]
    assert figures["mfu"] == figures["mfu_base"] > 0
    assert figures["augment_images_per_s"] > 0
    assert "imagenet2012" in figures["loader_note"]
    assert "\n" not in figures["loader_note"]
    head, _, *rows = benchmark_report.step_table(figures).splitlines()
    assert head.split() == ["|", "|", "base", "|"]
    assert any(re.match(r"\| peak memory, bytes +\| +[\d,]+ \|", row) for row in rows)


@pytest.mark.slow
def test_a_step_from_ready_views_is_the_same_without_augmentation():
    mesh = make_mesh(jax.devices()[:1])
    experiment = tiny_experiment(regularizer="none", **{"model.depth": 1})
    losses = []
    for ready_views in (False, True):  # plain views: nothing of them is drawn
        timed = speed.TimedStep(experiment, mesh, ready_views)
        scope = re.search(r'op_name="[^"]*/views/', timed._step.as_text())
        assert (scope is None) is ready_views
        losses.append(float(timed._step(timed._state, timed._batch)[1]["loss"]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_steps_are_timed_in_turns_and_the_first_round_is_dropped():
    calls = []

    def step(name, seconds):
        times = iter(seconds)

        def run():
            calls.append(name)
            return next(times)

        return run

    a, b = speed.interleaved_times([step("a", [9, 1, 2]), step("b", [9, 3, 4])], 2)
    assert calls == ["a", "b"] * 3
    assert a.tolist() == [1, 2] and b.tolist() == [3, 4]


@pytest.mark.parametrize(
    ("kind", "tera"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989),
        ("NVIDIA A100-SXM4-40GB", 312),
        ("TPU v4", 275),
        ("TPU v5 lite", 197),
        ("TPU v5", 459),
        ("TPU v6 lite", 918),
    ],
)
def test_peak_of_known_devices(kind, tera):
    assert chip(kind).flops == tera * 1e12
    assert chip("cpu") is None
