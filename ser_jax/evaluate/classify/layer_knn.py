"""k-NN accuracy of every layer: how much of the class its tokens tell."""

import numpy as np

from ser_jax.evaluate.classify.knn import knn_predict
from ser_jax.evaluate.features.readings import MEANS
from ser_jax.evaluate.options import NoOptions
from ser_jax.evaluate.subject import Subject
from ser_jax.evaluate.task import Task, no_labels

_NEIGHBORS = 20


def _measure(subject: Subject, options: NoOptions) -> dict[str, dict[str, float]]:
    """Top-1 by the mean patch token after each layer."""
    del options
    train, held_out = (subject.labelled(split, MEANS) for split in ("train", "eval"))
    k = min(_NEIGHBORS, len(train.labels))
    results = {}
    for name, bank in train.by_name.items():
        queries = held_out.by_name[name]
        classes = knn_predict(queries, bank, train.labels, neighbors=[k])[k]
        top1 = float(np.mean(classes == held_out.labels))
        results[name.replace("mean", "layer_")] = {"top1": top1}
    return results


TASK = Task(
    name="layer_knn",
    section="Accuracy",
    caption="k-NN (k = 20) on the mean patch token after each layer.",
    measure=_measure,
    obstacle=no_labels,
    in_all=False,  # of many images, many features
    better={"top1": "higher"},
    in_detail=("layer_*",),
)
