"""From views to features, in as few calls of the encoder as their sizes allow."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ser_jax.models.outputs import Encoder, EncoderOutput
from ser_jax.models.placement import by_rows, num_devices
from ser_jax.views.view import View, ViewSpec, split_rows


def encode(
    encoder: Encoder,
    params: Any,
    batch_stats: Any,
    views: Mapping[str, View],
    specs: Sequence[ViewSpec],
    *,
    running: Collection[str] = (),
    joint: bool = False,
    drop_path_rng: jax.Array | None = None,
) -> tuple[dict[str, EncoderOutput], Any]:
    """Features of some views, and the encoder's new BatchNorm statistics.

    Views of one size are encoded in one call. Only with BatchNorm in the encoder does
    each view have a call, and statistics, of its own, as in MoCo v3 and BYOL; but those
    of one `statistics_group` share theirs, as the local views of DINO, and if `joint`
    all of one size that are of no group, as in SimCLR and EquiMod.

    Args:
        encoder: The encoder.
        params: Its weights.
        batch_stats: Its running statistics; {} if it has none.
        views: View name -> view.
        specs: Which of them to encode.
        running: Names of the views whose statistics enter the running ones, which are
            those of evaluation.
        joint: See `Objective.joint_batch_norm`.
        drop_path_rng: Key for stochastic depth; None for none, as in a teacher.

    Returns:
        View name -> features, and the running statistics after these views.
    """
    calls: dict[Any, list[str]] = {}
    for spec in specs:
        view = views[spec.name]
        key: tuple[Any, ...] = (view.images.shape, view.group)
        if encoder.has_batch_norm:
            apart = "" if spec.statistics_group or joint else spec.name
            key = (*key, spec.statistics_group, apart)
        calls.setdefault(key, []).append(spec.name)
    features: dict[str, EncoderOutput] = {}
    for i, ((_, group, *_), members) in enumerate(calls.items()):
        num = len(members)
        elements = [element for n in members if (element := views[n].element)]
        shapes = [element.grid_shape for element in elements]
        rngs = {}
        if drop_path_rng is not None:
            rngs["drop_path"] = jax.random.fold_in(drop_path_rng, i)
        out, updated = encoder.apply(
            {"params": params, "batch_stats": batch_stats},
            _together([views[name] for name in members]),
            _padded(interleave(shapes)) if shapes else None,
            num_slots=group.num_slots if group else None,
            train=True,
            rngs=rngs,
            mutable=["batch_stats"],
        )
        if members[0] in running:
            batch_stats = updated.get("batch_stats", {})
        for j, name in enumerate(members):
            features[name] = _rows_of(views[name], out, j, num)
    return features, batch_stats


def _together(views: Sequence[View]) -> jax.Array:
    """Images of some views, image by image; padded where they are spread."""
    if not views[0].spread:
        return interleave([view.images for view in views])
    assert views[0].spread == len(views), "those that were spread come together"
    images = views[0].images
    number = jnp.arange(images.shape[0])[:, None, None, None] % len(views)
    for j, view in enumerate(views[1:], start=1):
        images = jnp.where(number == j, view.images, images)
    return images


def _padded(x: jax.Array) -> jax.Array:
    """The last row repeated until the devices divide the rows, which lie on them."""
    missing = -x.shape[0] % num_devices()
    if missing == 0:
        return x
    edges = [(0, missing)] + [(0, 0)] * (x.ndim - 1)
    return by_rows(jnp.pad(x, edges, mode="edge"))


def _rows_of(view: View, out: EncoderOutput, first: int, stride: int) -> EncoderOutput:
    """A view's features among those that were encoded together."""

    def cut(x: jax.Array) -> jax.Array:
        x = x[: view.num_images * stride][first::stride]
        return split_rows(x, view.replaced)[0] if view.replaced else x

    return jax.tree.map(cut, out)


def interleave(views: Sequence[jax.Array]) -> jax.Array:
    """V arrays as one: image 0's views, then image 1's.

    Views side by side within an image keep a batch that is sharded by images in place.

    Args:
        views: Arrays `[b, ...]`, of one shape.

    Returns:
        `[b * v, ...]`; view j is `[j::v]` of it.
    """
    return jnp.stack(views, axis=1).reshape(-1, *views[0].shape[1:])
