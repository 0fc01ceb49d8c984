"""The list of programs, going on where it was stopped, and the page; none compiled."""

import dataclasses
import importlib.util
import itertools
import json
import sys

import pytest
from helpers import ROOT

VERSIONS = {"jax": "1.2.3"}
STAMP = {"package": "0.1.0 (abc)", "date": "2026-01-01"}


@pytest.fixture(scope="module")
def program():
    """`benchmarks/tpu_compiler.py`."""
    path = ROOT / "benchmarks" / "tpu_compiler.py"
    spec = importlib.util.spec_from_file_location("tpu_compiler", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["tpu_compiler"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def figures(ms, **changes):
    return {
        "batch_size": 2048,
        "chip_memory_bytes": 17 * 10**9,
        "peak_memory_bytes": 10**10,
        "fits": True,
        "attention": "fused",
        "remat": "products",
        "scan": False,
        "compiler_ms": ms,
        "custom_call_ms": 57.0,
        "collectives": 14,
        "wire_bytes": 228e6,
        "compile_s": 60.0,
    } | changes


@pytest.fixture
def planned(program):
    """A base by two names, its regularized step, the same on a slice of more."""
    names = ["moco_v3:none", "moco_v3:ser"]
    step = program.Program(names[1], False, "v5e:2x4")
    base = dataclasses.replace(step, is_base=True)
    large = dataclasses.replace(step, topology="v5e:8x8")
    own = dataclasses.replace(base, recipe=names[0], is_base=False)
    return program.plan([own, base, step, large], VERSIONS)


def test_a_base_that_recipes_share_is_one_program(planned):
    none, ser, large = planned
    assert none.program.label == "moco_v3:none" and none.base is None
    assert ser.program.label == "moco_v3:ser" and ser.base == none.digest
    assert large.digest != ser.digest and large.base not in (none.digest, None)


def test_a_stopped_run_goes_on_and_the_page_is_of_all_lines(program, planned, tmp_path):
    results, pages, compiled = tmp_path / "results.jsonl", [], []

    def compile_two(which):
        if len(compiled) == 2:
            raise KeyboardInterrupt
        compiled.append(which)
        return figures(400.0 + 20 * len(compiled))

    def compile_large(which):
        compiled.append(which)
        names = ("compiler_ms", "custom_call_ms", "collectives", "wire_bytes")
        return figures(1.0, fits=False) | dict.fromkeys(names)

    def show(lines):
        pages.append(program.page(planned, lines, VERSIONS))

    def run(compile_one):
        return program.run(planned, show, STAMP, results=results, compiled=compile_one)

    with pytest.raises(KeyboardInterrupt):
        run(compile_two)
    assert len(pages) == 3 and "## v5e:8x8" not in pages[-1]
    with results.open("a") as stream:
        stream.write('{"digest": "cut o')  # and killed while it wrote
    assert not run(compile_large)
    assert compiled == [x.program for x in planned]
    assert not run(compile_two)  # nothing is left to do
    page = " ".join(pages[-1].split())
    row = (
        "products, fused, unrolled | 10.0 / 17.0 | {} | {} | 57 | 14 | 228 | 60 | {} |"
    )
    assert f"| moco_v3:none | {row.format('yes', 420, '4,876 | |')}" in page
    assert f"| moco_v3:ser | {row.format('yes', 440, '4,655 | 1.048 | 20')}" in page
    assert "10.0 / 17.0 | NO | | | | | 60 | | | |" in page
    assert "to compile yet, loops apart: 0." in page and "0.1.0 (abc)" in page
    assert "| 1,017 |" in page.partition("## Before")[2]


def test_what_fails_is_told_and_tried_again(program, planned, tmp_path):
    def run(compile_one):
        return program.run(
            planned[:1],
            lambda lines: None,
            STAMP,
            results=tmp_path / "results.jsonl",
            compiled=compile_one,
        )

    assert run(lambda _: None) == [planned[0].program]
    assert run(lambda _: figures(1.0)) == []
    (line,) = map(json.loads, (tmp_path / "results.jsonl").read_text().splitlines())
    assert line["digest"] == planned[0].digest and line["compiler_ms"] == 1.0
    assert line["asked"] == {"attention": "auto", "scan": "auto"}


def test_other_versions_and_settings_are_other_programs(program, planned):
    which = planned[1].program
    others = [
        program.digest(which, {"jax": "1.2.4"}),
        program.digest(dataclasses.replace(which, attention="xla"), VERSIONS),
        program.digest(dataclasses.replace(which, scan=True), VERSIONS),
        program.digest(dataclasses.replace(which, recipe="dino:ser"), VERSIONS),
    ]
    assert len({planned[1].digest, *others}) == 5
    assert program.digest(which, VERSIONS) == planned[1].digest


def test_the_most_important_come_first_and_xla_last(program):
    everything = program.plan(program.programs("auto"), VERSIONS)
    names = [x.program.name for x in everything]
    assert len(set(names)) == len(names) > 200
    slices = ("v5e:2x4", "v5e:8x8", "v5e:16x16", "v5e:4x8", "v5p:2x2x2", "v6e:2x4")
    assert names[:12] == [
        f"{slice} moco_v3:{preset} attention=auto"
        for slice, preset in itertools.product(slices, ("none", "ser"))
    ]
    attention = [x.program.attention for x in everything]
    assert attention == sorted(attention)
    known = {x.digest for x in everything}
    assert all(x.base is None or x.base in known for x in everything)
