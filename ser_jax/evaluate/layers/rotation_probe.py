"""Whether a linear classifier can tell from frozen features how a picture is turned."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ser_jax.evaluate.features.layers import every_layer, whole_batches
from ser_jax.models.outputs import EncoderOutput


def rotation_probe_by_depth(
    encoder: nn.Module, variables: Mapping[str, Any], images: np.ndarray, *, seed: int
) -> dict[str, float]:
    """Accuracy of `rotation_accuracy` on every layer's mean token.

    Args:
        encoder: The encoder; any `grid_layers`.
        variables: Its variables.
        images: Normalised square pictures, `[n, s, s, 3]`, float32.
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
    # The pictures fill their grids.
    means = {f"layer_{k}": jnp.mean(x.tokens, axis=1) for k, x in out.grids.items()}
    return means | {"cls": out.cls}


def rotation_accuracy(features: np.ndarray, *, seed: int) -> float:
    """How often logistic regression says by how many quarter turns pictures are turned.

    It is fitted to all four turns of one half of the pictures and asked about those of
    the other half. Features are standardised, the L2 penalty is scikit-learn's (C = 1).

    Args:
        features: Of each picture under 0 to 3 quarter turns, `[4, n, d]`, float.
        seed: Of the halves.

    Returns:
        Accuracy in [0, 1]; chance is 0.25.

    Raises:
        ValueError: If there are fewer than two pictures.
    """
    _, n, d = features.shape
    if n < 2:
        raise ValueError(
            f"a half of the pictures fits, the other tests: needs two, got {n}."
        )
    order = np.random.default_rng(seed).permutation(n)
    (fit, fit_turns), (test, test_turns) = (
        (features[:, half].reshape(-1, d), np.repeat(np.arange(4), len(half)))
        for half in np.array_split(order, 2)
    )
    classifier = make_pipeline(
        StandardScaler(), LogisticRegression(max_iter=1000, tol=1e-3)
    )
    return float(classifier.fit(fit, fit_turns).score(test, test_turns))
