"""What a detector is trained on: class, box and centerness of every location."""

import jax
import jax.numpy as jnp
import optax

from ser_jax.evaluate.detection.assign import Locations, assign
from ser_jax.evaluate.detection.boxes import centerness, giou_loss
from ser_jax.evaluate.detection.head import Outputs

_ALPHA = 0.25  # weight of what is there; the rest is of what is not


def focal_loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Cross-entropy of each class, little of it where the answer is already right.

    Args:
        logits: `[..., c]`.
        labels: Class, `[...]`, int; -1 for none of them.

    Returns:
        `[..., c]`, float32.

    Reference:
        RetinaNet (arXiv 1708.02002), Eq. 5, with alpha .25 and gamma 2.
    """
    logits = logits.astype(jnp.float32)
    there = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    logits = jnp.where(there, logits, -logits)  # of the right answer
    weights = jnp.where(there, _ALPHA, 1 - _ALPHA)
    return -weights * jax.nn.sigmoid(-logits) ** 2 * jax.nn.log_sigmoid(logits)


def detection_loss(
    outputs: Outputs, locations: Locations, boxes: jax.Array, labels: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Loss of a batch.

    Args:
        outputs: Of the detector, on b pictures.
        locations: n locations.
        boxes: `[b, m, 4]`, x0 y0 x1 y1 in pixels.
        labels: Class of each box, `[b, m]`, int; -1 where there is none.

    Returns:
        The loss, `[]`, float32, and its terms, of which it is the sum: "class" and
        "centerness", over the number of locations that have a box; "box", a mean
        weighted by centerness. All sums are over the global batch; without a box in it
        only "class" is not 0.

    Reference:
        FCOS (arXiv 1904.01355), Eq. 2, with the GIoU and its weights of arXiv
        2006.09214. The least of "centerness" is not 0: its targets are between 0 and 1.
    """
    targets, distances = jax.vmap(assign, (None, 0, 0))(locations, boxes, labels)
    found = targets >= 0  # [b, n]
    count = jnp.maximum(jnp.sum(found, dtype=jnp.float32), 1.0)
    central = centerness(distances)  # [b, n]; 0 where nothing is found
    weight = jnp.sum(central)
    around = giou_loss(_box(outputs.distances), _box(distances))
    is_central = optax.sigmoid_binary_cross_entropy(outputs.centerness, central)
    terms = {
        "class": jnp.sum(focal_loss(outputs.logits, targets)) / count,
        "box": jnp.sum(central * around) / jnp.where(weight > 0, weight, 1.0),
        "centerness": jnp.sum(jnp.where(found, is_central, 0.0)) / count,
    }
    return terms["class"] + terms["box"] + terms["centerness"], terms


def _box(distances: jax.Array) -> jax.Array:
    """The box around its location: exact, where pixels would be rounded."""
    return distances * jnp.array([-1, -1, 1, 1], jnp.float32).reshape(
        (1,) * (distances.ndim - 1) + (4,)
    )
