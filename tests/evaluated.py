"""Runs to evaluate, and how tests do."""

import json

from runs import save_made_up
from support import tiny_config

from ser_jax.evaluate import evaluate
from ser_jax.tasks.task import Options


def make_run(folder, objective, regularizer):
    config = tiny_config(
        objective,
        regularizer,
        **{"dataset.data_dir": str(folder / "data"), "augment.image_size": 32},
    )
    config.dataset.train_split = "train[:500]"
    save_made_up(config, folder)
    return folder


def measure(run, folder, *tasks, **options):
    report, _ = evaluate(run, tasks, Options(folder, **options))
    return json.loads((folder / "results.json").read_text()), report
