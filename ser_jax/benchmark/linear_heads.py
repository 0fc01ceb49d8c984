"""What a grid of linear heads costs beside one head, and beside the frozen encoder."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ser_jax.evaluate.classify.linear_heads import train_heads
from ser_jax.evaluate.classify.protocols import GRID, LinearProtocol
from ser_jax.evaluate.features.readings import read_tokens
from ser_jax.train.experiment import Experiment

_REPEATS = 5
_NUM_BATCHES = 8
ONE_HEAD = dataclasses.replace(GRID, features=("cls1",), base_learning_rates=(1.0,))


def head_costs(experiment: Experiment, *, num_classes: int) -> dict[str, Any]:
    """Seconds per training image of linear evaluation with one head and with a grid.

    Each image passes the encoder once; heads then train on its cached features for the
    protocol's epochs.

    Args:
        experiment: Says which encoder; its batch size is that of the forward pass.
        num_classes: Classes of the heads.

    Returns:
        `encoder_s`: forward pass of an image; `heads_1_s`, `heads_grid_s`: all epochs
        of the heads for an image; `num_heads`: of the grid; `linear_ratio`: both
        stages with the grid over both with one head; `heads_ratio`: of the second
        stage alone.
    """
    encoder = experiment.learner.encoder
    side, batch_size = encoder.image_size, experiment.batch_size
    rng = np.random.default_rng(0)
    images = rng.normal(size=(batch_size, side, side, 3)).astype(np.float32)
    variables = jax.jit(encoder.init)(jax.random.key(0), images[:1])
    reading = read_tokens(encoder, variables)
    read = jax.jit(reading.read)
    encoder_s = _seconds(lambda: read(reading.variables, images)) / batch_size

    num = _NUM_BATCHES * GRID.batch_size
    width = max(columns.stop for columns in reading.columns.values())
    rows = rng.normal(size=(num, width)).astype(np.float32)
    features = {name: rows[:, columns] for name, columns in reading.columns.items()}
    labels = rng.integers(0, num_classes, num)

    def heads_s(protocol: LinearProtocol) -> float:
        once = dataclasses.replace(protocol, num_epochs=1)
        chosen = {name: features[name] for name in protocol.features}
        seconds = _seconds(
            lambda: train_heads(
                chosen,
                labels,
                np.arange(num),
                protocol=once,
                seed=0,
                num_classes=num_classes,
            )
        )
        return protocol.num_epochs * seconds / num

    one, grid = heads_s(ONE_HEAD), heads_s(GRID)
    return {
        "encoder_s": encoder_s,
        "heads_1_s": one,
        "heads_grid_s": grid,
        "num_heads": len(GRID.features) * len(GRID.settings()),
        "linear_ratio": (encoder_s + grid) / (encoder_s + one),
        "heads_ratio": grid / one,
    }


def _seconds(run: Callable[[], Any]) -> float:
    """Median time of a call, compilation apart."""
    times = []
    for _ in range(1 + _REPEATS):
        started = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - started)
    return float(np.median(times[1:]))
