"""What a training step, the loader, the loss and linear evaluation cost, in figures."""

import logging

import jax
import numpy as np

from ser_jax.benchmark import step as speed
from ser_jax.benchmark.ntxent_memory import ntxent_temp_bytes
from ser_jax.benchmark.tables import Figures
from ser_jax.evaluate.cost.compare import compare_flops, without_regularizer
from ser_jax.train.accounting import count_parameters
from ser_jax.train.chips import chip
from ser_jax.train.experiment import Experiment
from ser_jax.train.sharding import check_batch_size, make_mesh

_logger = logging.getLogger(__name__)

# In every JSON file of an experiment, if only as null. Those without `_base` or `_ser`
# are the config's own.
_ALWAYS = (
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
)


def measure(
    experiment: Experiment,
    *,
    flops_only: bool = False,
    ready_views: bool = False,
    num_steps: int = 20,
    loader_seconds: float = 3.0,
) -> Figures:
    """All figures of an experiment.

    Args:
        experiment: What is trained. If it has a regularizer, its base is measured
            beside it.
        flops_only: Count only: compile and run nothing, read no data.
        ready_views: Time the steps alone, from views that are made already: neither
            augmentation nor loader.
        num_steps: Timed steps of each kind.
        loader_seconds: Duration of each timing of the loader.

    Returns:
        Figures by name, JSON-ready; None for one not taken or not known (`mfu` on a
        CPU; without a regularizer what ends in `_ser`, and ratios).
    """
    is_base = experiment.config["regularizer"]["name"] == "none"
    base = experiment if is_base else without_regularizer(experiment)
    regularized = None if is_base else experiment
    state = jax.eval_shape(experiment.init_state, experiment.init_rng)
    figures: Figures = dict.fromkeys(_ALWAYS)
    figures |= {
        "batch_size": experiment.batch_size,
        "ready_views": ready_views,
        "parameters": count_parameters(experiment, state.variables),
        "config": experiment.config,
    }
    _logger.info("Counting FLOPs.")
    figures |= compare_flops(base, regularized)
    if flops_only:
        return figures
    figures |= measure_steps(base, regularized, num_steps, ready_views)
    figures |= utilization(figures)
    if not ready_views:
        _logger.info("Timing the augmentation.")
        seconds = np.median(speed.augment_times(experiment, make_mesh(), num_steps))
        figures["augment_images_per_s"] = float(experiment.batch_size / seconds)
        figures |= measure_loader(experiment, loader_seconds)
    return figures


def measure_steps(
    base: Experiment,
    regularized: Experiment | None,
    num_steps: int,
    ready_views: bool = False,
) -> Figures:
    """Time and memory of the training steps on the devices there are, on noise.

    Args:
        base: The objective alone.
        regularized: The same with the regularizer; None: the base is timed alone.
        num_steps: Timed steps of each, taken in turns.
        ready_views: Whether their views are made already.

    Returns:
        Seconds a step, images per second, compile time, peak memory.
    """
    own, experiment = ("base", base) if regularized is None else ("ser", regularized)
    mesh, batch_size = make_mesh(), experiment.batch_size
    check_batch_size(batch_size, mesh, experiment.accumulate_steps)
    _logger.info("Compiling the step.")
    steps = {own: speed.TimedStep(experiment, mesh, ready_views)}
    steps[own].run()
    # Before the base step exists: a device's statistics cannot be set back.
    peak_memory_bytes, peak_memory_source = steps[own].peak_memory()
    if regularized is not None:
        _logger.info("Compiling the base step.")
        steps = {"base": speed.TimedStep(base, mesh, ready_views), **steps}
    _logger.info("Timing %d steps of each.", num_steps)
    times = speed.interleaved_times([step.run for step in steps.values()], num_steps)
    figures: Figures = {
        "num_steps": num_steps,
        "peak_memory_bytes": peak_memory_bytes,
        "peak_memory_source": peak_memory_source,
        "compile_s": steps[own].compile_s,
        "compile_s_base": steps["base"].compile_s,
    }
    for name, step_s in zip(steps, times, strict=True):
        p10, median, p90 = (float(x) for x in np.percentile(step_s, (10, 50, 90)))
        figures[f"step_s_{name}"] = median
        figures[f"step_s_p10_{name}"], figures[f"step_s_p90_{name}"] = p10, p90
    figures["images_per_s"] = batch_size / figures[f"step_s_{own}"]
    figures["images_per_s_base"] = batch_size / figures["step_s_base"]
    if regularized is not None:
        figures["step_ratio"] = figures["step_s_ser"] / figures["step_s_base"]
    return figures


def utilization(figures: Figures) -> Figures:
    """Model FLOPs utilization: FLOP/s achieved over the bfloat16 peak of all devices.

    Args:
        figures: FLOPs and seconds of both steps, or of the base alone.

    Returns:
        `mfu` of the config, `mfu_base` of its base; {} if the peak is not known.
    """
    sheet = chip(jax.devices()[0].device_kind)
    if sheet is None:
        return {}
    peak = sheet.flops * jax.device_count()
    own = "base" if figures.get("step_s_ser") is None else "ser"
    return {
        name: figures[f"flops_per_step_{step}"] / figures[f"step_s_{step}"] / peak
        for name, step in (("mfu", own), ("mfu_base", "base"))
    }


def measure_loader(experiment: Experiment, seconds: float) -> Figures:
    """Images per second of the loader alone.

    Args:
        experiment: Names the data set and the crops.
        seconds: Duration of each timing.

    Returns:
        Rate with the config's own number of threads, with 1 and with 2; the reason
        instead if the data or a library is not there.
    """
    dataset = experiment.config["dataset"]
    try:
        from ser_jax.benchmark.loader import loader_images_per_s
        from ser_jax.data.host_transforms import RandomCrops
        from ser_jax.data.sources import open_source

        source = open_source(
            dataset["name"], dataset["train_split"], dataset["data_dir"]
        )
    except (ModuleNotFoundError, FileNotFoundError) as error:
        _logger.warning("The loader is not timed: %s", error)
        return {"loader_note": str(error)}
    rates = {}
    for num_threads in {1, 2, experiment.num_threads}:
        _logger.info("Timing the loader, %d thread(s).", num_threads)
        rates[num_threads] = loader_images_per_s(
            source,
            RandomCrops(experiment.crops, experiment.pair_seed),
            batch_size=experiment.batch_size,
            num_threads=num_threads,
            prefetch_batches=experiment.prefetch_batches,
            seconds=seconds,
        )
    return {
        "loader_images_per_s": rates[experiment.num_threads],
        "loader_images_per_s_1_thread": rates[1],
        "loader_images_per_s_2_threads": rates[2],
    }


def measure_ntxent_memory() -> Figures:
    """Memory of the token-level loss at 4k to 32k tokens; nothing is run.

    Returns:
        Bytes of temporaries of the loss and its gradient, blockwise and dense.
    """
    num_slots = 256  # of a 14 x 14 grid
    rows = []
    for num_images in (16, 32, 64, 128):
        tokens = num_images * num_slots
        _logger.info("Compiling the loss for %d tokens.", tokens)
        blockwise, dense = (
            ntxent_temp_bytes(num_images, num_slots=num_slots, block_tokens=block)
            for block in (1024, tokens)
        )
        rows.append(
            {"tokens": tokens, "blockwise_bytes": blockwise, "dense_bytes": dense}
        )
    return {"ntxent_temp_memory": rows}
