"""Runs to evaluate, and how tests do."""

import json

from helpers.runs import save_made_up
from helpers.support import tiny_config
from ser_jax.evaluate.results import evaluate
from ser_jax.evaluate.results_file import as_text


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
    results = evaluate(run, tasks, folder=folder, **options)
    return json.loads((folder / "results.json").read_text()), as_text(results)


def results_about(**changes):
    """What results say they are of: nine images of a set called mine."""
    data = {
        **{"name": "mine", "version": "1.0.0", "split": "test", "num_examples": 9},
        "content": {"test": "sha256:aaaaaaaaaa"},
    }
    return {"digest": 1, "num_eval": 9, "data": {"eval": data | changes}}
