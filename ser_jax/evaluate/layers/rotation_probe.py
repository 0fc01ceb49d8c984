"""Whether a linear classifier can tell from frozen features how an image is turned."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ser_jax.evaluate.classify.heads import Head, head_logits
from ser_jax.evaluate.classify.logreg import fit_logistic_regression
from ser_jax.evaluate.features.layers import every_layer, whole_batches
from ser_jax.evaluate.task import Task, no_images
from ser_jax.models.outputs import Encoder, EncoderOutput


def rotation_probe_by_depth(
    encoder: Encoder, variables: Mapping[str, Any], images: np.ndarray, *, seed: int
) -> dict[str, float]:
    """Accuracy of `rotation_accuracy` on every layer's mean token.

    Args:
        encoder: The encoder; any `grid_layers`.
        variables: Its variables.
        images: Normalised square images, `[n, s, s, 3]`, float32.
        seed: Of the halves.

    Returns:
        "layer_<k>", "cls" (the final class token) -> accuracy in [0, 1]; "chance".
    """
    encode = every_layer(encoder, variables)
    turned: list[list[dict[str, np.ndarray]]] = [[] for _ in range(4)]
    for batch in whole_batches(images):
        for turns, rows in enumerate(turned):
            out = encode(np.rot90(batch, turns, axes=(1, 2)))
            rows.append(jax.device_get(_means(out)))
    return {
        name: rotation_accuracy(
            np.stack([np.concatenate([x[name] for x in rows]) for rows in turned]),
            seed=seed,
        )
        for name in (*(f"layer_{k}" for k in encode.layers), "cls")
    } | {"chance": 0.25}


@jax.jit
def _means(out: EncoderOutput) -> dict[str, jax.Array]:
    """Mean token of every layer, and the class token, `[b, d]`."""
    # The images fill their grids.
    means = {f"layer_{k}": jnp.mean(x.tokens, axis=1) for k, x in out.grids.items()}
    return means | {"cls": out.cls}


def rotation_accuracy(features: np.ndarray, *, seed: int) -> float:
    """How often logistic regression says by how many quarter turns images are turned.

    It is fitted to all four turns of one half of the images and asked about those of
    the other half. Features are standardised; the L2 penalty is half the squared norm
    of the weights beside the sum over examples (scikit-learn's C = 1).

    Args:
        features: Of each image under 0 to 3 quarter turns, `[4, n, d]`, float.
        seed: Of the halves.

    Returns:
        Accuracy in [0, 1]; chance is 0.25.

    Raises:
        ValueError: If there are fewer than two images.
    """
    _, n, d = features.shape
    if n < 2:
        raise ValueError(
            f"a half of the images fits, the other tests: needs two, got {n}."
        )
    order = np.random.default_rng(seed).permutation(n)
    (fit, fit_turns), (test, test_turns) = (
        (features[:, half].reshape(-1, d), np.repeat(np.arange(4), len(half)))
        for half in np.array_split(order, 2)
    )
    mean, std = fit.mean(axis=0), fit.std(axis=0)
    std = np.where(std > 0, std, 1)  # what never varies stays 0
    fit, test = (((x - mean) / std).astype(np.float32) for x in (fit, test))
    head, _ = fit_logistic_regression(
        jnp.asarray(fit),
        jnp.asarray(fit_turns),
        start=Head(jnp.zeros((d, 4)), jnp.zeros(4)),
        l2=1 / len(fit),
        max_iterations=1000,
    )
    predicted = np.asarray(head_logits(head, jnp.asarray(test))).argmax(axis=1)
    return float(np.mean(predicted == test_turns))


TASK = Task(
    name="rotation_probe",
    section="Equivariance",
    caption="How often a linear probe names the turn out of four.",
    measure=lambda subject, _: rotation_probe_by_depth(
        subject.encoder.module,
        subject.encoder.local_variables,
        subject.images,
        seed=subject.seed,
    ),
    obstacle=no_images,
)
