"""Comparing with PyTorch: turns, what is refused, medians, ratio; without PyTorch."""

import runpy
import sys

import pytest
from helpers import ROOT

PEERS = ROOT / "benchmarks" / "peers"
READY, WHOLE = "ours, ready views", "ours, with augmentation"
EAGER, COMPILED = "PyTorch, eager", "PyTorch, compiled"
RATES = {READY: (4, 2, 9), WHOLE: (3, 2, 1), EAGER: (5, 1, 3), COMPILED: (8, 9, 7)}


@pytest.fixture(scope="module")
def compare():
    """Names of `benchmarks/peers/compare.py`."""
    return runpy.run_path(str(PEERS / "compare.py"))


def result(column, rate=1.0, **changes):
    own = column in (READY, WHOLE)
    parts = {"encoder": 21, "objective": 20, "target": 40}
    return {
        "device": "1 x cpu" if own else "cpu",
        "batch_size": 16,
        "parameters": parts | ({"regularizer": 0} if own else {}),
        "images_per_s": rate,
        "peak_memory_bytes": 10**9 if own else None,
    } | changes


def rounds(compare, columns, **changes):
    """What `take_turns` gives for rates that each process finds in turn."""
    rates, started = {name: iter(RATES[name]) for name in columns}, []

    def run(command):
        started.append(*command)
        return result(command[0], next(rates[command[0]]), **changes)

    found = compare["take_turns"]({name: [name] for name in columns}, 3, run)
    assert started == [*columns] * 3
    return found


def test_turns_medians_and_ratios(compare):
    figures = compare["summary"](rounds(compare, RATES))
    assert figures["images_per_s"] == {k: list(v) for k, v in RATES.items()}
    assert figures["median_images_per_s"] == {READY: 4, WHOLE: 2, EAGER: 3, COMPILED: 8}
    assert figures["ratio"] == {EAGER: 4 / 3, COMPILED: 4 / 8}
    text = " ".join(compare["comparison_table"](figures).split())
    assert "| round 2 | 2 | 2 | 1 | 9 | 2 | 0.2222 |" in text
    assert "| median | 4 | 2 | 3 | 8 | 1.333 | 0.5 |" in text
    assert "memory" not in text  # on a CPU ours alone is known, and planned


def test_memory_is_told_where_both_measured_it(compare):
    found = rounds(compare, (READY, WHOLE, EAGER), peak_memory_bytes=25 * 10**8)
    figures = compare["summary"](found)
    text = " ".join(compare["comparison_table"](figures).split())
    assert "| peak memory, GB | 2.5 | 2.5 | 2.5 | |" in text


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"device": "NVIDIA H100 80GB HBM3"}, "device cpu and NVIDIA H100"),
        ({"batch_size": 8}, "batch 16 and 8"),
        ({"parameters": {"encoder": 22}}, "parameters .*21.* and .*22"),
    ],
)
def test_what_differs_is_not_compared(compare, changes, named):
    ours = result(READY)
    compare["check_alike"](ours, result(EAGER), EAGER)
    compare["check_alike"](ours, ours, READY)
    with pytest.raises(ValueError, match=named):
        compare["check_alike"](ours, result(EAGER, **changes), EAGER)
    with pytest.raises(ValueError, match="CUDA_VISIBLE_DEVICES"):
        compare["check_alike"](result(READY, device="8 x cpu"), result(EAGER), EAGER)


def test_without_pytorch_one_line_says_what_to_install(monkeypatch):
    for name in ("torch", "timm"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SystemExit, match="needs timm: pip install torch timm$"):
        runpy.run_path(str(PEERS / "torch_moco_v3.py"))


def test_all_run_with_the_settings_of_the_docs_but_for_what_is_set(
    compare, monkeypatch
):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setenv("XLA_FLAGS", "--own")
    program = (
        "import json, os, sys; json.dump({**os.environ}, open(sys.argv[1][7:], 'w'))"
    )
    found = compare["result_of"]([sys.executable, "-c", program])
    assert found["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
    assert found["XLA_FLAGS"] == "--own"
