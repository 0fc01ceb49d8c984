"""k-NN accuracy and rank of an encoder's features while it trains."""

import functools
import logging
from collections.abc import Callable
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ser_jax.data.crops import eval_resize_px
from ser_jax.data.host_transforms import CentreCrop
from ser_jax.data.sources import Source, open_source
from ser_jax.evaluate.classify.collapse import rankme
from ser_jax.evaluate.classify.knn import knn_predict
from ser_jax.evaluate.data import has_labels
from ser_jax.evaluate.features.extract import extract, make_embed
from ser_jax.train.experiment import Experiment
from ser_jax.train.health import KNN_ACCURACY, KNN_PIXELS, RANKME
from ser_jax.train.loop import Probe

_MOST_PIXELS = 32  # a side: more would tell k-NN little, and fill the memory

_logger = logging.getLogger(__name__)


def make_probe(experiment: Experiment, source: Source, mesh: Mesh) -> Probe | None:
    """What a run measures of its encoder now and then while it trains.

    Args:
        experiment: The run.
        source: What it trains on.
        mesh: The mesh.

    Returns:
        `make_online_knn`'s probe; None if it is off, or a split has no labels.
    """
    dataset, knn = experiment.config["dataset"], experiment.config["knn"]
    if not knn["every_epochs"]:
        return None
    try:
        held_out = open_source(
            dataset["name"], dataset["eval_split"], dataset["data_dir"]
        )
    except ValueError as error:  # no such split
        _logger.warning("No k-NN probe: %s. Set --config.dataset.eval_split.", error)
        return None
    train = source.subset(knn["max_train_examples"])
    held_out = held_out.subset(knn["max_eval_examples"])
    for part in (train, held_out):
        if not has_labels(part):
            _logger.info("%s, %s, has no labels: no k-NN probe.", part.name, part.split)
            return None
    size = experiment.image_size
    return make_online_knn(
        experiment.embed,
        lambda images: raw_pixels(experiment.normalize(images)),
        train,
        held_out,
        CentreCrop(size, eval_resize_px(size)),
        mesh,
        batch_size=experiment.batch_size,
        num_threads=experiment.num_threads,
        num_neighbors=knn["num_neighbors"],
        temperature=knn["temperature"],
    )


def make_online_knn(
    embed: Callable[[Any, jax.Array], jax.Array],
    pixels: Callable[[jax.Array], jax.Array],
    train_source: Source,
    eval_source: Source,
    transform: grain.transforms.Map,
    mesh: Mesh,
    *,
    batch_size: int,
    num_threads: int,
    num_neighbors: int,
    temperature: float,
) -> Probe:
    """A probe to call now and then.

    Args:
        embed: `(encoder variables, images [b, h, w, 3] uint8) -> features [b, d]`.
        pixels: `(images) -> [b, d]`: what is read likewise, once, to compare.
        train_source: Records, of which those with a label are the bank.
        eval_source: Records, of which those with a label are classified.
        transform: Host transform of both.
        mesh: The mesh.
        batch_size: Global batch size of the feature extraction.
        num_threads: Threads that decode.
        num_neighbors: Neighbours that vote; at most the bank's size.
        temperature: See `knn_predict`.

    Returns:
        `variables -> {"knn_accuracy": share of eval_source classified right,
        "knn_accuracy_pixels": the same of its pixels, "rankme": smooth rank of its
        features}`.
    """
    read_tokens = make_embed(embed, mesh)
    read_pixels = make_embed(lambda _, images: pixels(images), mesh)

    def features(read: Any, params: Any, source: Source) -> tuple[np.ndarray, ...]:
        rows, labels = extract(
            read,
            params,
            source,
            transform,
            mesh,
            batch_size=batch_size,
            num_threads=num_threads,
        )
        return rows[labels >= 0], labels[labels >= 0]

    def accuracy(read: Any, params: Any) -> tuple[float, np.ndarray]:
        bank, labels = features(read, params, train_source)
        queries, truth = features(read, params, eval_source)
        k = min(num_neighbors, len(bank))
        predicted = knn_predict(
            queries, bank, labels, neighbors=[k], temperature=temperature
        )
        return float(np.mean(predicted[k] == truth)), queries

    @functools.cache
    def accuracy_of_pixels() -> float:
        return accuracy(read_pixels, ())[0]

    def probe(params: Any) -> dict[str, float]:
        of_tokens, queries = accuracy(read_tokens, params)
        return {
            KNN_ACCURACY.name: of_tokens,
            KNN_PIXELS.name: accuracy_of_pixels(),
            RANKME.name: rankme(queries),
        }

    return probe


def raw_pixels(images: jax.Array) -> jax.Array:
    """Images as features: what an encoder has to be better than.

    Args:
        images: `[b, h, w, 3]`, float, normalised.

    Returns:
        `[b, s * s * 3]` with s the side, at most 32 pixels, resized (antialiased).
    """
    side = min(_MOST_PIXELS, images.shape[1])
    small = jax.image.resize(images, (len(images), side, side, 3), "linear")
    return jnp.reshape(small, (len(images), -1))
