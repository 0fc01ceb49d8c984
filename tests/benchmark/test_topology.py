"""A step for a slice that is not here: its figures, and what is said without one."""

import importlib.util

import jax
import pytest
from helpers.support import tiny_config

from ser_jax.benchmark import topology
from ser_jax.benchmark.tables import topology_table
from ser_jax.benchmark.topology import measure_topology, slice_mesh
from ser_jax.evaluate.cost.compare import without_regularizer
from ser_jax.train.accounting import step_and_shapes
from ser_jax.train.chips import Chip
from ser_jax.train.experiment import build
from ser_jax.train.flops import count_flops
from ser_jax.train.sharding import make_mesh

pytestmark = pytest.mark.slow
CHIP = Chip(flops=1e12, bandwidth=1e11, memory=10**9, clock_hz=1e9)


@pytest.fixture
def here(monkeypatch):
    """The devices that are here stand for a slice."""
    mesh = make_mesh(jax.devices()[:2])  # of eight they take longer to compile
    monkeypatch.setattr(topology, "slice_mesh", lambda _: mesh)
    monkeypatch.setattr(topology, "chip", lambda _: CHIP)


def test_figures_of_a_step_and_its_base(here):
    experiment = build(tiny_config("simclr", "ser"), 64)  # the least to compile
    texts = {}
    figures = measure_topology(experiment, "v5e:2x4", texts.__setitem__)
    assert texts.keys() == {"step", "base"}
    assert figures["fits"] and figures["num_devices"] == 2
    chosen = [figures[name] for name in ("attention", "remat", "scan_base")]
    assert chosen == ["xla", "none", False]
    assert figures["peak_memory_bytes"] > figures["peak_memory_bytes_base"] > 0
    assert figures["collectives"] > figures["collectives_base"] > 0
    assert figures["wire_bytes"] > figures["wire_bytes_base"]
    # A device's FLOPs with padding are its share of the step's, and more.
    for suffix, of in (("", experiment), ("_base", without_regularizer(experiment))):
        share = count_flops(*step_and_shapes(of)) / 2
        assert 0.98 * share <= figures[f"flops{suffix}"] < 1.5 * share
    assert figures["flops_ratio"] > 1
    assert figures["custom_call_ms"] == 0
    table = topology_table(figures)
    assert "The step fits." in table and "| sent by a device, MB" in table


def test_a_batch_is_encoded_in_parts_before_it_is_halved(monkeypatch):
    """Nothing is compiled: here what is 4 parts or more fits."""
    tried = []

    def compile_for(experiment, mesh):
        tried.append((experiment.accumulate_steps, experiment.batch_size))
        fits = "a program" if experiment.accumulate_steps >= 4 else None
        return topology.Compiled(10**9 // experiment.accumulate_steps, fits, "", 0.0)

    monkeypatch.setattr(topology, "compile_for", compile_for)
    mesh = make_mesh(jax.devices()[:2])
    remedies = dict(topology._remedies(build(tiny_config(), 64), mesh))
    assert remedies == {
        "model.remat=full": 10**9,
        "optimizer.accumulate_steps=2": 10**9 // 2,
        "optimizer.accumulate_steps=4": 10**9 // 4,
    }
    assert tried == [(1, 16), (2, 16), (4, 16)]
    tried.clear()  # 3 images a device are not cut in two
    odd = tiny_config(batch_size=6)
    assert list(dict(topology._remedies(build(odd, 64), mesh))) == [
        "model.remat=full",
        "batch_size=3",
    ]


def test_a_slice_needs_the_compiler(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r'pip install -e "\.\[tpu\]"'):
        slice_mesh("v5e:2x4")


def test_without_xlas_compiler_for_gpus_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'pip install "jax\[cuda12\]"'):
        slice_mesh("h100:8")


def test_where_the_compiler_estimates_no_time_the_table_has_none(here, monkeypatch):
    """As for GPUs, whose compiler does not refuse what does not fit either."""
    small = CHIP._replace(memory=1000)
    monkeypatch.setattr(topology, "chip", lambda _: small)
    monkeypatch.setattr(topology, "_remedies", lambda *_: {"a remedy": 1}.items())
    experiment = build(tiny_config("simclr", "none"), 64)
    figures = measure_topology(experiment, "h100:2", lambda *_: None)
    assert figures["compiler_ms"] is None and figures["peak_share"] is None
    assert not figures["fits"] and figures["peak_memory_bytes"] > 1000
    assert "DOES NOT FIT" in topology_table(figures)
    fitting = figures | {"fits": True}
    assert "images/s" not in topology_table(fitting)
