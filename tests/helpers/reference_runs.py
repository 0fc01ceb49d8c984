"""Trains the runs of `tests/fixtures/reference/`, and writes them.

    PYTHONPATH=.:tests JAX_DISABLE_MOST_OPTIMIZATIONS=1 \
        python tests/helpers/reference_runs.py

SER on SimCLR, digits cropped to 16 px, an encoder of width 32 with two blocks, 120
steps of 32 images. `digits_tiny.jsonl` is a reference of five seeds; `others.json` has
runs beside it, see `RUNS`. All are one compiled program, which is told the key and the
factors on the learning rate and on the term's weight.
"""

import dataclasses
import json
import pathlib
import tempfile

import cv2
import jax
import numpy as np
import optax
from sklearn import datasets

from helpers.references import FOLDER
from helpers.support import tiny_config
from ser_jax.evaluate.classify.collapse import rankme
from ser_jax.evaluate.classify.knn import knn_predict
from ser_jax.report.reference import line_of, text_of
from ser_jax.storage.files import write_text
from ser_jax.storage.metrics import MetricWriter
from ser_jax.storage.runs import read_runs
from ser_jax.storage.summary import write_summary
from ser_jax.train.experiment import build
from ser_jax.train.step import make_train_step

COMMAND = "python tests/helpers/reference_runs.py"
DEVICE = "2 cores (Intel Xeon, 2.5 GHz)"
NUM_SEEDS, NUM_TRAIN, NUM_BANK = 5, 1500, 400
PROBE_EVERY_STEPS = 20
# Name -> seed, factors on the learning rate and on the weight of the term.
RUNS = {
    **{f"seed{seed}": (seed, 1.0, 1.0) for seed in range(NUM_SEEDS)},
    **{"another_seed": (5, 1.0, 1.0), "rate_times_10": (6, 10.0, 1.0)},
    **{"no_term": (7, 1.0, 0.0), "rate_times_100": (8, 100.0, 1.0)},
}


def config_of(seed, rate, weight):
    config = tiny_config("simclr", log_every_steps=2, seed=seed)
    config.update(batch_size=32, total_epochs=2.6)
    config.model.width = 32
    config.objective.update(output_dim=32, temperature=0.2)
    config.regularizer.update(share=0.25, weight=weight)
    config.optimizer.update(base_lr=0.03 * rate, warmup_epochs=0.4)
    return config


def pictures():
    """Digits, `[n, 8, 8, 3]`, uint8, and their labels, in an order of their own."""
    digits = datasets.load_digits()
    order = np.random.default_rng(0).permutation(len(digits.images))
    images = np.round(digits.images[order] * (255 / 16)).astype(np.uint8)
    return np.repeat(images[..., None], 3, axis=-1), digits.target[order]


def random_crops(experiment, images, rng):
    """A batch as the loader makes it; crops are squares of 5 to 8 pixels."""
    crops, params = {}, {}
    for spec in experiment.crops:
        sides = rng.integers(5, 9, len(images))
        tops, lefts = (rng.integers(0, 9 - sides) for _ in range(2))
        crops[spec.name] = np.stack(
            [
                cv2.resize(
                    image[y : y + side, x : x + side], (spec.size_px, spec.size_px)
                )
                for image, y, x, side in zip(images, tops, lefts, sides, strict=True)
            ]
        )
        eight, zero = np.full(len(images), 8), np.zeros(len(images))
        boxes = (tops, lefts, sides, sides, eight, eight, zero)
        params[spec.name] = np.stack(boxes, axis=1).astype(np.float32)
    return {"crops": crops, "crop_params": params}


class Program:
    """What all runs share."""

    def __init__(self):
        first = self.first = build(config_of(0, 1.0, 1.0), NUM_TRAIN)
        self.images, self.labels = pictures()
        size = (first.image_size, first.image_size)
        shown = [cv2.resize(x, size) for x in self.images]
        self.shown = np.stack([*shown[:NUM_BANK], *shown[NUM_TRAIN:]])
        self.shown_labels = np.r_[self.labels[:NUM_BANK], self.labels[NUM_TRAIN:]]
        self.init, self.embed = jax.jit(first.init_state), jax.jit(first.embed)
        self.step = jax.jit(self._step)

    def _step(self, state, batch, rng, rate, weight):
        first = self.first

        def update(grads, *state_and_params):
            updates, state = first.optimizer.update(grads, *state_and_params)
            return jax.tree.map(lambda x: rate * x, updates), state

        learner = dataclasses.replace(first.learner, weight_factor=lambda _: weight)
        optimizer = optax.GradientTransformation(first.optimizer.init, update)
        step = make_train_step(learner, optimizer, first.learning_rate, rng)
        return step(state, batch)

    def probe(self, state):
        variables = self.first.evaluated(state.variables)
        features = np.asarray(self.embed(variables, self.shown))
        labels, queries = self.shown_labels, features[NUM_BANK:]
        predicted = knn_predict(
            queries, features[:NUM_BANK], labels[:NUM_BANK], neighbors=[20]
        )
        accuracy = np.mean(predicted[20] == labels[NUM_BANK:])
        return {"knn_accuracy": accuracy, "rankme": rankme(queries)}

    def train(self, workdir, seed, rate, weight):
        experiment = build(config_of(seed, rate, weight), NUM_TRAIN)
        last, rng = experiment.resolved.stop_step, np.random.default_rng(seed)
        state, writer = self.init(experiment.init_rng), MetricWriter(workdir)
        writer.write_scalars(0, self.probe(state))
        for step in range(1, last + 1):
            rows = rng.choice(NUM_TRAIN, experiment.batch_size, replace=False)
            batch = random_crops(experiment, self.images[rows], rng)
            state, metrics = self.step(state, batch, experiment.step_rng, rate, weight)
            if step in (1, last) or step % experiment.log_every_steps == 0:
                writer.write_scalars(step, metrics)
            if step % PROBE_EVERY_STEPS == 0:
                writer.write_scalars(step, self.probe(state))
        writer.close()
        write_summary(workdir, {"steps": last, "device": DEVICE}, experiment.config)


def main():
    """Trains and writes."""
    program, lines = Program(), {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, settings in RUNS.items():
            workdir = pathlib.Path(scratch, name)
            program.train(workdir, *settings)
            (run,) = read_runs([workdir])
            lines[name] = line_of(run, COMMAND, {"jax": jax.__version__})
            print(name, run.last_step, run.curves["loss"][-1, 1], flush=True)
    seeds = [lines.pop(f"seed{seed}") for seed in range(NUM_SEEDS)]
    FOLDER.mkdir(exist_ok=True)
    write_text(FOLDER / "digits_tiny.jsonl", text_of(seeds))
    write_text(FOLDER / "others.json", json.dumps(lines, separators=(",", ":")))


if __name__ == "__main__":
    main()
