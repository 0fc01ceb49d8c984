"""Command line: what the TPU compiler says of every ImageNet recipe.

    python benchmarks/tpu_compiler.py

compiles each recipe's training step and its base's for slices that are not here, as
`python -m ser_jax.benchmark --topology` does, one program at a time, on any x86 Linux
machine with `pip install -e ".[tpu]"`. Each program, once done, is a line of
`tpu_compiler.jsonl`, and `tpu_compiler.md` is written anew from the lines. It can be
stopped at any time: started again, it goes on with the programs that have no line.

What tells programs apart is their settings, the slice and the versions of jax, jaxlib
and libtpu, not the recipe's name: a base that several recipes share is compiled once. A
line of other settings or versions stays in the file, and off the page.

`--list` tells what there is and what is done; `--only=SUBSTRING` takes those alone
whose name in that list contains it; `--scan=True` compiles the blocks in a loop, which
takes a third of the time and gives slower programs, in rows of their own.
"""

import dataclasses
import datetime
import functools
import hashlib
import importlib.metadata
import json
import multiprocessing
import pathlib
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

import jax
from absl import app, flags

from ser_jax import __version__
from ser_jax.benchmark.topology import data_sheet, measure_program, slice_mesh
from ser_jax.config import flags as command_line
from ser_jax.evaluate.cost.compare import without_regularizer
from ser_jax.storage.files import parse_object, write_text
from ser_jax.storage.tables import table
from ser_jax.train.experiment import Experiment, build

Line = dict[str, Any]

HERE = pathlib.Path(__file__).parent
RESULTS, PAGE = HERE / "tpu_compiler.jsonl", HERE / "tpu_compiler.md"

# The most important first.
_MAIN = ("moco_v3:none", "moco_v3:ser")
_MAIN_SLICES = (
    *("v5e:2x4", "v5e:8x8", "v5e:16x16", "v5e:4x8"),
    *("v5p:2x2x2", "v6e:2x4"),
)
_SLICES = ("v5e:2x4", "v5p:2x2x2", "v6e:2x4")
_VIT_PRESETS = (
    *("ser_paper", "ser_release", "2plus4", "ser_2plus4"),
    *("equimod", "augself", "essl", "stl"),
)
# No attention, no blocks that could run in a loop.
_RESNETS = tuple(
    f"{base}:{x}" for base in ("byol", "simclr") for x in ("none", "ser", "equimod")
)
_RECIPES = (
    *("dino:none", "dino:ser", "barlow_twins:none", "barlow_twins:ser"),
    *(f"moco_v3:{preset}" for preset in _VIT_PRESETS),
    "dino:multicrop",
    *(f"dino:{preset}" for preset in _VIT_PRESETS),
    *(f"barlow_twins:{preset}" for preset in _VIT_PRESETS),
    *(f"moco_v3:{x}_decoupled" for x in ("equimod", "augself", "essl", "stl")),
    *("moco_v3:augself_release", "moco_v3:stl_release", "moco_v3:ser_2plus4_release"),
    *_RESNETS,
)
# Settings that the program does not depend on.
_APART = {
    *("checkpoint", "dataset", "knn", "loader", "log_every_steps", "max_steps"),
    *("seed", "total_epochs"),
}

_BEFORE = (
    ("", "slice", "ms", "collectives", "MB sent", "peak, GB"),
    (
        "moco_v3:none, as configured",
        "v5e:2x4",
        "",
        "",
        "",
        "43.5 of 15.75 GiB: did not fit",
    ),
    ("moco_v3:none, all computed again", "v5e:2x4", "1,007", "38", "228", ""),
    ("moco_v3:ser, all computed again", "v5e:2x4", "1,017", "589", "390", ""),
    ("moco_v3:none", "v5e:8x8", "88.4", "36", "259", "6.5"),
    ("moco_v3:ser", "v5e:8x8", "103.8", "996", "866", "7.0"),
    ("moco_v3:ser", "v5e:16x16", "38.6", "1,830", "988", ""),
    ("moco_v3:ser", "v5e:4x8", "217", "2,551", "854", ""),
    ("moco_v3:none, unrolled", "v5p:2x2x2", "314", "14", "228", "30.6"),
    ("moco_v3:ser, in a loop", "v5p:2x2x2", "397", "589", "390", ""),
)


def _define_flags() -> None:
    flags.DEFINE_string("only", "", "Of the programs' names, those that hold this.")
    flags.DEFINE_bool("list", False, "Tell what there is, and compile nothing.")
    flags.DEFINE_bool("scan", False, "Blocks in a loop, not as chosen by itself.")


@dataclasses.dataclass(frozen=True)
class Program:
    """One training step on one slice.

    Attributes:
        recipe: Config file and preset, "moco_v3:ser".
        is_base: Whether it is that recipe's step without its regularizer.
        topology: As `slice_mesh` takes it.
        attention: `model.attention`: "auto" or "xla".
        scan: `model.scan`: "auto" or True.
    """

    recipe: str
    is_base: bool
    topology: str
    attention: str = "auto"
    scan: bool | str = "auto"

    @property
    def label(self) -> str:
        """What it is called in tables."""
        return f"{self.recipe}{' without regularizer' if self.is_base else ''}"

    @property
    def name(self) -> str:
        """What it is called in the list."""
        return f"{self.topology} {self.label} attention={self.attention}"


@dataclasses.dataclass(frozen=True)
class Planned:
    """A program, and what it is known by in the results.

    Attributes:
        program: The program.
        digest: Of its settings, slice and versions.
        base: Digest of its base; None if it is one.
    """

    program: Program
    digest: str
    base: str | None


def experiment_of(program: Program) -> Experiment:
    """What a program trains, at its recipe's own batch size."""
    return _experiment(dataclasses.replace(program, topology=""))


@functools.cache
def _experiment(program: Program) -> Experiment:
    """The same for all slices."""
    if program.is_base:
        return without_regularizer(
            _experiment(dataclasses.replace(program, is_base=False))
        )
    file, _, preset = program.recipe.partition(":")
    path = HERE.parent / "configs" / f"{file}.py"
    config = runpy.run_path(str(path))["get_config"](preset)
    config.model.update(attention=program.attention, scan=program.scan)
    return build(config, 1000 * config.batch_size)  # schedules alone depend on it


def programs(scan: bool | str) -> Iterator[Program]:
    """Every program, the most important first; some of them are the same.

    Args:
        scan: `model.scan` of all.

    Yields:
        Each recipe's base, if it has a regularizer, then its step; all again with XLA's
        attention.
    """
    rows = [(recipe, topology) for topology in _MAIN_SLICES for recipe in _MAIN]
    rows += [(recipe, topology) for recipe in _RECIPES for topology in _SLICES]
    for attention in ("auto", "xla"):
        for recipe, topology in rows:
            if recipe in _RESNETS and (attention, scan) != ("auto", "auto"):
                continue
            step = Program(recipe, False, topology, attention, scan)
            if experiment_of(step).config["regularizer"]["name"] != "none":
                yield dataclasses.replace(step, is_base=True)
            yield step


def digest(program: Program, versions: Mapping[str, str]) -> str:
    """What tells a program from others.

    Args:
        program: The program.
        versions: Of what compiles it.

    Returns:
        12 hexadecimal digits.
    """
    config = experiment_of(program).config
    settings = {name: value for name, value in config.items() if name not in _APART}
    text = json.dumps([settings, program.topology, dict(versions)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def plan(of: Iterable[Program], versions: Mapping[str, str]) -> list[Planned]:
    """Programs with their digests, each once, by the name that comes first.

    Args:
        of: Programs.
        versions: Of what compiles them.

    Returns:
        The plan.
    """
    planned: dict[str, Planned] = {}
    for program in of:
        own = digest(program, versions)
        base = digest(dataclasses.replace(program, is_base=True), versions)
        planned.setdefault(own, Planned(program, own, None if own == base else base))
    return list(planned.values())


def compile_program(program: Program) -> Line:
    """Compiles a program.

    Args:
        program: The program.

    Returns:
        Figures by name: `measure_program` has most.
    """
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)  # it is timed
    experiment = experiment_of(program)
    mesh = slice_mesh(program.topology)
    figures, _ = measure_program(experiment, mesh)
    figures.pop("largest_collectives", None)  # long
    return {
        "batch_size": experiment.batch_size,
        "num_devices": mesh.size,
        "chip_memory_bytes": data_sheet(mesh).memory,
        **figures,
    }


def _send(sender: Connection, program: Program) -> None:
    sender.send(compile_program(program))


def in_a_process_of_its_own(program: Program) -> Line | None:
    """`compile_program`; all its memory is free afterwards.

    Args:
        program: The program.

    Returns:
        Figures; None if the process ended without any, having said why.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, program), daemon=True)
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        return None
    finally:
        process.kill()  # the compiler does not listen to Ctrl-C
        process.join()


def read_lines(path: pathlib.Path) -> dict[str, Line]:
    """Programs that are done.

    Args:
        path: The results.

    Returns:
        Digest -> line, the last one of it. One that is no JSON is left out: its writer
        was stopped.
    """
    lines = {}
    for text in path.read_bytes().splitlines() if path.exists() else ():
        try:
            line = parse_object(text)
        except ValueError:
            continue
        lines[line["digest"]] = line
    return lines


def append_line(path: pathlib.Path, line: Line) -> None:
    """Adds a program to the results.

    Args:
        path: The results.
        line: The program and its figures.
    """
    with path.open("ab") as stream:
        text = json.dumps(line).encode() + b"\n"
        # After what a stopped writer left, a line of its own.
        is_cut = stream.tell() and not path.read_bytes().endswith(b"\n")
        stream.write(b"\n" + text if is_cut else text)


def run(
    chosen: Sequence[Planned],
    show: Callable[[dict[str, Line]], None],
    stamp: Mapping[str, Any],
    *,
    results: pathlib.Path = RESULTS,
    compiled: Callable[[Program], Line | None] = in_a_process_of_its_own,
) -> list[Program]:
    """Compiles what has no line yet.

    Args:
        chosen: Programs, in their order.
        show: Called with all lines, at the start and after each program.
        stamp: What every new line says beside its program and figures.
        results: File of the lines.
        compiled: Compiles one; None if that failed.

    Returns:
        Those that failed.
    """
    lines = read_lines(results)
    show(lines)
    to_do = [x for x in chosen if x.digest not in lines]
    num_done, failed = len(chosen) - len(to_do), []
    for number, planned in enumerate(to_do, start=num_done + 1):
        program = planned.program
        print(f"[{number}/{len(chosen)}] {program.name} ...", file=sys.stderr)
        figures = compiled(program)
        if figures is None:
            failed.append(program)
            print("  FAILED: tried again at the next start.", file=sys.stderr)
            continue
        line = {
            "digest": planned.digest,
            "recipe": program.recipe,
            "is_base": program.is_base,
            "topology": program.topology,
            "asked": {"attention": program.attention, "scan": program.scan},
            **stamp,
            **figures,
        }
        append_line(results, line)
        lines = read_lines(results)  # another one of us may write, too
        show(lines)
        mean_s = sum(x["compile_s"] for x in lines.values()) / len(lines)
        left_h = (len(chosen) - number) * mean_s / 3600
        print(f"  {_told(line)}; about {left_h:.1f} h left.", file=sys.stderr)
    return failed


def _told(line: Line) -> str:
    memory = f"{_gigabytes(line)} GB"
    if not line["fits"]:
        return f"{line['compile_s']:.0f} s: does not fit, {memory}"
    return f"{line['compile_s']:.0f} s: {line['compiler_ms']:.4g} ms, {memory}"


def page(
    everything: Sequence[Planned],
    lines: Mapping[str, Line],
    versions: Mapping[str, str],
) -> str:
    """The tables.

    Args:
        everything: The plan, loops beside what is chosen by itself.
        lines: What `read_lines` gives.
        versions: Of what compiles.

    Returns:
        Markdown: a table for each slice, a row for each program that is done.
    """
    done = [x for x in everything if x.digest in lines]
    order = {x.program.label: i for i, x in reversed(list(enumerate(everything)))}
    done.sort(key=lambda x: order[x.program.label])  # what is asked stays in order
    packages = sorted({lines[x.digest]["package"] for x in done}) or [__version__]
    made_by = [f"{name} {version}" for name, version in versions.items()]
    made_by += [f"ser_jax {package}" for package in packages]
    missing = sum(x.digest not in lines for x in everything if x.program.scan == "auto")
    left = f"Programs to compile yet, loops apart: {missing}."
    parts = [_HEAD, f"{', '.join(made_by)}. {left}"]
    for topology in dict.fromkeys(x.program.topology for x in everything):
        here = [x for x in done if x.program.topology == topology]
        if here:
            parts += [f"## {topology}", _table(here, lines)]
    return "\n\n".join([*parts, "## Before", _BEFORE_HEAD, table(_BEFORE)])


_HEAD = """# By the TPU compiler

    python benchmarks/tpu_compiler.py

writes this page. Nothing was run: memory, bytes and collectives are the
compiler's, ms its estimate for a step, collectives left out; kernels, which it has none
for, are the larger of bytes over bandwidth and padded FLOPs at half of the peak. Every
recipe is at its own global batch. Ratio and "added" are against the recipe's base with
the same attention. "Chosen": what the backward pass keeps (`model.remat`), attention,
and whether blocks run in a loop; rows with "xla" beneath a "fused" one were asked for
XLA's attention. Recipes whose settings are the same stand here once. A GB is 1e9
bytes. Seconds are the clock's: what else the machine did meanwhile is in them."""

_BEFORE_HEAD = """The first measurements: XLA's attention, and what is computed again as
the config said."""

_PLAIN = (  # head, key, unit
    ("ms", "compiler_ms", 1.0),
    ("of it kernels", "custom_call_ms", 1.0),
    ("collectives", "collectives", 1.0),
    ("MB sent", "wire_bytes", 1e-6),
    ("compiled in, s", "compile_s", 1.0),
)


def _table(here: Sequence[Planned], lines: Mapping[str, Line]) -> str:
    """One slice's rows."""
    head = ["", "chosen", "peak / chip, GB", "fits", *(name for name, _, _ in _PLAIN)]
    cells = [[*head, "images/s", "ratio", "added, ms"]]
    for planned in here:
        line, base = lines[planned.digest], lines.get(planned.base or "", {})
        row = [planned.program.label, _chosen(line), _gigabytes(line)]
        row += ["yes" if line["fits"] else "NO"]
        row += [_text(line[key], unit) for _, key, unit in _PLAIN]
        own, base_ms = line["compiler_ms"], base.get("compiler_ms")
        row += [_text(own and 1e3 * line["batch_size"] / own)]
        compared = own and base_ms
        row += [f"{own / base_ms:.3f}", _text(own - base_ms)] if compared else ["", ""]
        cells.append(row)
    return table(cells)


def _chosen(line: Line) -> str:
    if line["attention"] is None:
        return ""
    form = "loop" if line["scan"] else "unrolled"
    return f"{line['remat']}, {line['attention']}, {form}"


def _gigabytes(line: Line) -> str:
    return " / ".join(
        f"{1e-9 * line[key]:.1f}" for key in ("peak_memory_bytes", "chip_memory_bytes")
    )


def _text(value: float | None, unit: float = 1) -> str:
    if value is None:
        return ""
    value *= unit
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _package() -> str:
    """Version and commit of what is compiled."""
    described, changed = (
        subprocess.run(
            ["git", *command], cwd=HERE.parent, capture_output=True, text=True
        ).stdout.strip()
        for command in (
            ("describe", "--always"),
            ("status", "--porcelain", "--", "ser_jax", "configs"),
        )
    )
    commit = described or "commit not known"
    return f"{__version__} ({commit}{', changed' if changed else ''})"


def main(argv: list[str]) -> None:
    """Lists the programs, or compiles those that are missing."""
    del argv
    values = flags.FLAGS
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(143)
    )  # else one goes on compiling
    jax.config.update("jax_platforms", "cpu")
    try:
        names = ("jax", "jaxlib", "libtpu")
        versions = {name: importlib.metadata.version(name) for name in names}
    except importlib.metadata.PackageNotFoundError:
        command_line.fail('this needs the TPU compiler: pip install -e ".[tpu]"')
    everything = plan([*programs("auto"), *programs(True)], versions)
    scan = True if values.scan else "auto"
    chosen = [
        x
        for x in everything
        if x.program.scan == scan and values.only in x.program.name
    ]
    if values.list:
        lines = read_lines(RESULTS)
        for x in chosen:
            print("done " if x.digest in lines else "to do", x.program.name)
        return

    def show(lines: Mapping[str, Line]) -> None:
        write_text(PAGE, page(everything, lines, versions))

    stamp = {
        "package": _package(),
        "date": datetime.date.today().isoformat(),
        "versions": versions,
    }
    if command_line.run_or_fail(run, chosen, show, stamp):
        sys.exit(1)


if __name__ == "__main__":
    _define_flags()
    app.run(main, flags_parser=command_line.parse_flags)
