"""Command line: MoCo v3's step here and in PyTorch, in turns, on one device.

    python benchmarks/peers/compare.py --batch=16 --steps=5 --rounds=3 --json=FILE

Every round runs, each in a process of its own: ours from ready views, ours with its
augmentation, and PyTorch with timm (`torch_moco_v3.py`), whose views are ready. Batch,
precision and, on a CPU, threads are the same: as many as this process may use
(`taskset` changes that), and all get memory in huge pages from glibc; ours runs with
the flag that docs/performance.md has for a CPU. That the networks are of one size is
checked by their parameters. A table goes to standard output, everything to the JSON
file.

PyTorch may live in an environment of its own: `--torch_python=ENV/bin/python`.
"""

import datetime
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import app, flags

from ser_jax.config import flags as command_line
from ser_jax.storage.files import read_json, write_json
from ser_jax.storage.tables import table

Result = Mapping[str, Any]  # what one process wrote

# See docs/performance.md, "CPU".
SETTINGS = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "XLA_FLAGS": "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_REDUCE",
}

ROOT = pathlib.Path(__file__).parents[2]
READY, WHOLE = "ours, ready views", "ours, with augmentation"
EAGER, COMPILED = "PyTorch, eager", "PyTorch, compiled"


def _define_flags() -> None:
    flags.DEFINE_integer("batch", 16, "Images a step.", lower_bound=1)
    flags.DEFINE_integer("steps", 5, "Steps timed in a round.", lower_bound=1)
    flags.DEFINE_integer("rounds", 3, "Turns.", lower_bound=1)
    flags.DEFINE_enum(
        "dtype", "float32", ["float32", "bfloat16"], "Of the encoder's products."
    )
    flags.DEFINE_bool("compile", False, "PyTorch also through torch.compile.")
    flags.DEFINE_string(
        "torch_python", sys.executable, "A Python that has torch and timm."
    )
    flags.DEFINE_string("json", None, "File to write the figures to.")


def commands(values: flags.FlagValues, threads: int) -> dict[str, list[str]]:
    """What is run in a round, in this order.

    Args:
        values: The flags.
        threads: Of PyTorch on a CPU. JAX takes as many as the process may use.

    Returns:
        Column of the table -> command line without `--json`.
    """
    ours = [sys.executable, "-m", "ser_jax.benchmark"]
    ours += [f"--config={ROOT}/configs/moco_v3.py", f"--batch_size={values.batch}"]
    ours += [f"--num_steps={values.steps}", f"--config.model.dtype={values.dtype}"]
    peer = [values.torch_python, f"{ROOT}/benchmarks/peers/torch_moco_v3.py"]
    peer += [f"--batch={values.batch}", f"--steps={values.steps}"]
    peer += [f"--dtype={values.dtype}", f"--threads={threads}"]
    chosen = {
        READY: [*ours, "--ready_views"],
        WHOLE: [*ours, "--loader_seconds=0.1"],
        EAGER: peer,
    }
    return chosen | ({COMPILED: [*peer, "--compile"]} if values.compile else {})


def result_of(command: Sequence[str]) -> Result:
    """What a process measured.

    Args:
        command: Its command line, without `--json`.

    Returns:
        The content of the file that it wrote.

    Raises:
        ValueError: If it fails; what it had to say has gone to standard error.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "figures.json")
        try:
            subprocess.run(
                [*command, f"--json={path}"],
                check=True,
                stdout=subprocess.DEVNULL,
                env=SETTINGS | os.environ,  # what is set already stays
            )
        except subprocess.CalledProcessError as error:
            raise ValueError(
                f"exit status {error.returncode} of: {' '.join(command)}"
            ) from None
        return read_json(path)


def take_turns(
    columns: Mapping[str, Sequence[str]],
    num_rounds: int,
    run: Callable[[Sequence[str]], Result] = result_of,
) -> list[dict[str, Result]]:
    """Runs every command once a round.

    Args:
        columns: What `commands` gives.
        num_rounds: Rounds.
        run: Runs one.

    Returns:
        For each round, column -> result.

    Raises:
        ValueError: If two results are not to be compared: see `check_alike`.
    """
    rounds = []
    for number in range(1, num_rounds + 1):
        results: dict[str, Result] = {}
        for name, command in columns.items():
            print(f"Round {number} of {num_rounds}: {name}.", file=sys.stderr)
            results[name] = run(command)
            check_alike(results[READY], results[name], name)
        rounds.append(results)
    return rounds


def check_alike(ours: Result, other: Result, name: str) -> None:
    """Refuses to compare what differs in device, batch or size of the network.

    Args:
        ours: Result of ours.
        other: Another one.
        name: Its column.

    Raises:
        ValueError: If they differ; names the first difference.
    """
    theirs = other["parameters"]
    pairs = {
        "device": tuple(x["device"].removeprefix("1 x ") for x in (ours, other)),
        "batch": (ours["batch_size"], other["batch_size"]),
        "parameters": ({k: ours["parameters"][k] for k in theirs}, theirs),
    }
    for what, (left, right) in pairs.items():
        if left != right:
            raise ValueError(
                f"{READY} and {name} are not to be compared: {what} {left} and {right}."
                " Both must run on one device, the same (CUDA_VISIBLE_DEVICES)."
            )


def summary(rounds: Sequence[Mapping[str, Result]]) -> dict[str, Any]:
    """Images a second of every round, and their medians.

    Args:
        rounds: What `take_turns` gives.

    Returns:
        `images_per_s`: column -> rounds; `median_images_per_s`: column -> median;
        `ratio`: column of PyTorch -> ours from ready views over it, of the medians;
        `peak_memory_bytes`: column -> the largest, None where a CPU has none measured.
    """
    names = list(rounds[0])
    rates = {n: [results[n]["images_per_s"] for results in rounds] for n in names}
    medians = {name: statistics.median(rate) for name, rate in rates.items()}
    peers = [name for name in names if name not in (READY, WHOLE)]
    memory = {
        name: None
        if rounds[0][EAGER]["peak_memory_bytes"] is None
        else max(results[name]["peak_memory_bytes"] for results in rounds)
        for name in names
    }
    return {
        "images_per_s": rates,
        "median_images_per_s": medians,
        "ratio": {name: medians[READY] / medians[name] for name in peers},
        "peak_memory_bytes": memory,
    }


def comparison_table(figures: Mapping[str, Any]) -> str:
    """Images a second, round by round, and the ratio of the medians.

    Args:
        figures: What `summary` gives.

    Returns:
        A markdown table.
    """
    rates, ratios = figures["images_per_s"], figures["ratio"]
    head = ("images/s", *rates, *(f"ready views / {name}" for name in ratios))
    cells = [head]
    for number, row in enumerate(zip(*rates.values(), strict=True), start=1):
        by_name = dict(zip(rates, row, strict=True))
        quotients = (by_name[READY] / by_name[name] for name in ratios)
        cells.append((f"round {number}", *map(_digits, (*row, *quotients))))
    medians = figures["median_images_per_s"].values()
    cells.append(("median", *map(_digits, (*medians, *ratios.values()))))
    memory = figures["peak_memory_bytes"]
    if all(memory.values()):
        gigabytes = (_digits(1e-9 * size) for size in memory.values())
        cells.append(("peak memory, GB", *gigabytes, *("" for _ in ratios)))
    return table(cells)


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def main(argv: list[str]) -> None:
    """Compares, prints the table, writes the file."""
    del argv
    values = flags.FLAGS
    threads = len(os.sched_getaffinity(0))
    columns = commands(values, threads)
    rounds = command_line.run_or_fail(take_turns, columns, values.rounds)
    ours, peer = rounds[0][READY], rounds[0][EAGER]
    figures = {
        "device": ours["device"],
        "threads": threads,
        "date": datetime.date.today().isoformat(),
        "versions": {
            name: result[f"{name}_version"]
            for name, result in (("jax", ours), ("torch", peer), ("timm", peer))
        },
        "seed": ours["config"]["seed"],
        "batch_size": values.batch,
        "dtype": values.dtype,
        "steps": values.steps,
        "command": " ".join(["python benchmarks/peers/compare.py", *sys.argv[1:]]),
        **summary(rounds),
        "rounds": rounds,
    }
    if values.json:
        command_line.run_or_fail(write_json, values.json, figures)
    versions = ", ".join(f"{k} {v}" for k, v in figures["versions"].items())
    print(f"{figures['device']}, {threads} threads, {figures['date']}, {versions}")
    print(f"{figures['command']}\n\n{comparison_table(figures)}")


if __name__ == "__main__":
    _define_flags()
    app.run(main, flags_parser=command_line.parse_flags)
