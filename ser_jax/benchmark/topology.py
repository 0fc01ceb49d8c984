"""What a training step costs on a TPU slice that is not here, by its own compiler.

`pip install -e ".[tpu]"` brings the TPU compiler, which runs on any x86 Linux machine.
Nothing is executed: bytes and operations are the compiler's, time is its estimate.
"""

import collections
import importlib.util
import logging
import math
import os
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies
from jax.sharding import Mesh

from ser_jax.benchmark.gpus import GPUS
from ser_jax.benchmark.program import Program
from ser_jax.evaluate.cost.compare import without_regularizer
from ser_jax.train.accounting import shared_crop_images
from ser_jax.train.chips import Chip, chip
from ser_jax.train.compiled import compile_train_step
from ser_jax.train.devices import for_devices
from ser_jax.train.experiment import Experiment, build
from ser_jax.train.sharding import check_batch_size, make_mesh

_logger = logging.getLogger(__name__)

_NOT_A_TPU_VM = {  # Else libtpu asks the network what it is, and says so at length.
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}
_LARGEST = 5


class Compiled(NamedTuple):
    """A step, compiled for a slice.

    Attributes:
        peak_memory_bytes: What a device needs at the worst moment.
        program: What it runs; None if it does not fit.
        text: The same as text.
        compile_s: Seconds that tracing and compiling took.
    """

    peak_memory_bytes: int
    program: Program | None
    text: str
    compile_s: float


def slice_mesh(topology: str) -> Mesh:
    """A mesh over devices that are not here.

    Args:
        topology: Kind of chip and its sides, like "v5e:2x4", "v5p:2x2x2", "v6e:2x4"; or
            kind and number of GPUs of one host, like "h100:8".

    Returns:
        The mesh.

    Raises:
        ValueError: If the compiler is not installed or knows no such slice.
    """
    kind, _, number = topology.partition(":")
    if kind in GPUS and re.fullmatch("[1-9][0-9]*", number):
        return _gpu_mesh(GPUS[kind], int(number))
    for name, value in _NOT_A_TPU_VM.items():
        os.environ.setdefault(name, value)
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError(
            "--topology needs the TPU compiler, which is not installed: "
            'pip install -e ".[tpu]" (x86 Linux; no TPU is needed).'
        )
    # Of one chip its host must be told to have no more.
    alone = re.fullmatch(r"\w+:1(x1)*", topology)
    bounds = {"chips_per_host_bounds": (1, 1, 1)} if alone else {}
    try:
        found = topologies.get_topology_desc(topology, "tpu", **bounds)
        devices = found.devices
    except Exception as error:  # of many types, by version
        raise ValueError(
            f"the TPU compiler knows no slice {topology!r} ({error}). Slices are "
            "written like v5e:1x1 (one chip), v5e:2x4, v5e:8x8, v6e:2x4, v5p:2x2x2, "
            f"GPUs like {', '.join(f'{gpu}:8' for gpu in GPUS)}."
        ) from None
    return make_mesh(list(devices))


def _gpu_mesh(description: str, number: int) -> Mesh:
    """A mesh over GPUs of one host, compiled for without trying what is fastest."""
    if importlib.util.find_spec("jax_cuda12_plugin") is None:
        raise ValueError(
            "--topology of GPUs needs XLA's compiler for them, which is not installed: "
            'pip install "jax[cuda12]" (x86 Linux, 4 GB; no GPU is needed).'
        )
    os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")  # there is no driver
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_autotune_level=0"
    found = topologies.get_topology_desc(
        "", "cuda", target_config=description, topology=f"1x1x{number}"
    )
    return make_mesh(list(found.devices))


def compile_for(experiment: Experiment, mesh: Mesh) -> Compiled:
    """Compiles a step as training does.

    Args:
        experiment: What is trained.
        mesh: Of devices that need not be here.

    Returns:
        The program, or the memory it would have needed.
    """
    state = jax.eval_shape(experiment.init_state, experiment.init_rng)
    started = time.perf_counter()
    try:
        compiled = compile_train_step(experiment, state, mesh)
    except jax.errors.JaxRuntimeError as error:
        wanted = re.search(r"Used ([\d.]+)([KMG]?) of [\d.]+[KMG]? hbm", str(error))
        if not wanted:
            raise
        num_bytes = int(float(wanted[1]) * _UNITS[wanted[2]])
        return Compiled(num_bytes, None, "", time.perf_counter() - started)
    seconds = time.perf_counter() - started
    memory, text = compiled.memory_analysis(), compiled.as_text()
    assert memory is not None and text is not None  # TPUs and GPUs tell both
    return Compiled(memory.peak_memory_in_bytes, Program(text), text, seconds)


def data_sheet(mesh: Mesh) -> Chip:
    """What a chip of a slice can do.

    Args:
        mesh: The slice's.

    Returns:
        Its figures.

    Raises:
        ValueError: If they are not known.
    """
    kind = mesh.devices.flat[0].device_kind
    sheet = chip(kind)
    if sheet is None:
        raise ValueError(f"{kind!r} has no data sheet in ser_jax/train/chips.py.")
    return sheet


def measure_program(
    experiment: Experiment, mesh: Mesh
) -> tuple[dict[str, Any], Compiled]:
    """What one step costs on a slice; no base beside it.

    Args:
        experiment: What is trained.
        mesh: The slice's, as `slice_mesh` makes it.

    Returns:
        Figures by name, JSON-ready, and what they were read from. Of a program that
        does not fit all are None but `fits`, `peak_memory_bytes`, `compile_s` and what
        was chosen: `attention`, `remat` and `scan`, which a ResNet has not (None).

    Raises:
        ValueError: If the devices do not divide the batch, or have no data sheet.
    """
    check_batch_size(experiment.batch_size, mesh, experiment.accumulate_steps)
    sheet = data_sheet(mesh)
    experiment = for_devices(experiment, mesh)
    encoder = experiment.learner.encoder
    chosen = {x: getattr(encoder, x, None) for x in ("attention", "remat", "scan")}
    compiled = compile_for(experiment, mesh)
    _logger.info("Compiled in %.0f s.", compiled.compile_s)
    return chosen | _figures(compiled, mesh.size, sheet), compiled


def measure_topology(
    experiment: Experiment, topology: str, keep: Callable[[str, str], None]
) -> dict[str, Any]:
    """What a step costs on a slice, beside its base's.

    Args:
        experiment: What is trained.
        topology: As `slice_mesh` takes it.
        keep: Called with "step" and "base" and each program's text.

    Returns:
        Figures by name, JSON-ready; those of a program that does not fit are None.
        `compiler_ms` is the compiler's estimate and, of `custom_call_ms`, ours: it has
        none for kernels. FLOPs are of one device, padding counted.

    Raises:
        ValueError: If there is no such slice or no compiler for it, or the devices do
            not divide the batch.
    """
    mesh = slice_mesh(topology)
    hosts = len({d.process_index for d in mesh.devices.flat})
    figures: dict[str, Any] = {
        "topology": topology,
        "device_kind": mesh.devices.flat[0].device_kind,
        "num_devices": mesh.size,
        "num_hosts": hosts,
        "chip_memory_bytes": data_sheet(mesh).memory,
        "batch_size": experiment.batch_size,
        "gradient_wire_bytes": _gradient_wire_bytes(experiment, mesh.size),
        "b2_images": shared_crop_images(experiment),
    }
    programs = {"": experiment}
    if experiment.config["regularizer"]["name"] != "none":
        programs["_base"] = without_regularizer(experiment)
    for suffix, of in programs.items():
        _logger.info(
            "Compiling %s for %s.", "the base" if suffix else "the step", topology
        )
        found, compiled = measure_program(of, mesh)
        keep("base" if suffix else "step", compiled.text)
        figures |= {name + suffix: value for name, value in found.items()}
    if "_base" in programs:
        for name in ("compiler_ms", "flops"):
            ours, base = figures[name], figures[f"{name}_base"]
            figures[f"{name}_ratio"] = ours / base if ours and base else None
    if figures["compiler_ms"]:
        rate = 1e3 * experiment.batch_size / figures["compiler_ms"]
        figures |= {"images_per_s": rate, "images_per_s_per_host": rate / hosts}
    if not figures["fits"]:
        figures["remedies"] = dict(_remedies(experiment, mesh))
    return figures


def _figures(compiled: Compiled, num_devices: int, sheet: Chip) -> dict[str, Any]:
    """What one program costs; all but memory None if it does not fit."""
    figures: dict[str, Any] = {
        # A TPU's compiler refuses what does not fit, a GPU's does not.
        "fits": compiled.program is not None
        and compiled.peak_memory_bytes <= (sheet.memory or math.inf),
        "peak_memory_bytes": compiled.peak_memory_bytes,
        "compile_s": compiled.compile_s,
    }
    if compiled.program is None:
        names = ("compiler_ms", "custom_call_ms", "ms_by_part", "peak_share", "flops")
        return figures | dict.fromkeys((*names, "wire_bytes", "collectives"))
    program = compiled.program
    parts: dict[str, float] = collections.defaultdict(float)
    for part, cycles in program.cycles_by_part().items():
        parts[part] += 1e3 * cycles / (sheet.clock_hz or math.nan)
    kernels_ms = 0.0
    for count, kernel, num_bytes in program.kernels():
        flops = int(kernel.named(r'"flops":"?(\d+)') or 0)
        seconds = max(num_bytes / sheet.bandwidth, flops / (sheet.flops / 2))
        kernels_ms += 1e3 * count * seconds
        parts[kernel.part] += 1e3 * count * seconds
    rows = program.collectives(num_devices)
    by_kind: dict[str, dict[str, float]] = {}
    for row in rows:
        kind = by_kind.setdefault(row.kind, {"count": 0, "wire_bytes": 0})
        kind["count"] += row.times
        kind["wire_bytes"] += row.wire_bytes
    flops, total = program.flops(), sum(parts.values())
    return (
        figures
        | {
            "compiler_ms": total or None,  # a GPU's compiler estimates nothing
            "custom_call_ms": kernels_ms,
            "ms_by_part": dict(sorted(parts.items(), key=lambda part: -part[1])),
            "flops": flops,
            "peak_share": 1e3 * flops / total / sheet.flops if total else None,
            "wire_bytes": sum(row.wire_bytes for row in rows),
            "collectives": sum(row.times for row in rows),
            "collectives_by_kind": by_kind,
            "largest_collectives": [row._asdict() for row in rows[:_LARGEST]],
        }
    )


def _gradient_wire_bytes(experiment: Experiment, num_devices: int) -> float:
    """What a device sends to reduce the gradient once, in float32."""
    state = jax.eval_shape(experiment.init_state, experiment.init_rng)
    numbers = sum(leaf.size for leaf in jax.tree.leaves(state.variables.params))
    return 2 * 4 * numbers * (num_devices - 1) / num_devices


def _remedies(experiment: Experiment, mesh: Mesh) -> Iterator[tuple[str, int]]:
    """Settings that need less memory, with the peak of each."""
    config, batch_size = experiment.config, experiment.batch_size
    remat = {"model": {**config["model"], "remat": "full"}}
    changes: list[tuple[str, dict[str, Any]]] = [("model.remat=full", remat)]
    steps, rows = 2 * experiment.accumulate_steps, batch_size // mesh.size
    while not experiment.learner.encoder.has_batch_norm and rows % steps == 0:
        optimizer = {**config["optimizer"], "accumulate_steps": steps}
        name = f"optimizer.accumulate_steps={steps}"
        changes.append((name, {"optimizer": optimizer}))
        steps *= 2
    while batch_size % 2 == 0 and batch_size // 2 >= mesh.size:
        batch_size //= 2
        changes.append((f"batch_size={batch_size}", {"batch_size": batch_size}))
    for name, change in changes:
        _logger.info("Compiling with %s.", name)
        num_images = experiment.resolved.steps_per_epoch * experiment.batch_size
        less = build({**experiment.config, **change}, num_images)
        compiled = compile_for(less, mesh)
        yield name, compiled.peak_memory_bytes
        if "model" not in change and compiled.program is not None:
            return
