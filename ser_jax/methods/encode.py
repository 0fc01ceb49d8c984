"""From views to features, in as few calls of the encoder as their sizes allow."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from ser_jax.models.outputs import Encoder, EncoderOutput, Pictures, RowEncoder
from ser_jax.models.placement import by_device, by_rows, everywhere, num_devices
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
    batches = [
        _pictures([views[name] for name in members]) for members in calls.values()
    ]
    if encoder.has_batch_norm:
        outputs = []
        for batch, members in zip(batches, calls.values(), strict=True):
            out, updated = encoder.apply(
                {"params": params, "batch_stats": batch_stats},
                batch.images,
                batch.grid_shape,
                num_slots=batch.num_slots,
                train=True,
                mutable=["batch_stats"],
            )
            outputs.append(out)
            if members[0] in running:
                batch_stats = updated.get("batch_stats", {})
    else:
        outputs = _by_device(cast(RowEncoder, encoder), params, batches, drop_path_rng)
    features: dict[str, EncoderOutput] = {}
    for out, members in zip(outputs, calls.values(), strict=True):
        for j, name in enumerate(members):
            features[name] = _rows_of(views[name], out, j, len(members))
    return features, batch_stats


def _by_device(
    encoder: RowEncoder,
    params: Any,
    batches: Sequence[Pictures],
    drop_path_rng: jax.Array | None,
) -> list[EncoderOutput]:
    """All sizes in one pass, each device its own rows: the gradient is reduced once."""
    keep = None
    if drop_path_rng is not None:
        draws = [
            encoder.drop_path_factors(
                jax.random.fold_in(drop_path_rng, i), batch.images.shape[0]
            )
            for i, batch in enumerate(batches)
        ]
        keep = None if draws[0] is None else draws

    def own(params: Any, rows: Any) -> list[EncoderOutput]:
        return encoder.apply({"params": params}, *rows, method="together")

    return by_device(own, params, (batches, keep))


def _pictures(views: Sequence[View]) -> Pictures:
    """Some views as one batch."""
    elements = [view.element for view in views if view.element]
    group = views[0].group
    images = _together(views)
    if group is None:
        return Pictures(images)
    shapes = _padded(interleave([element.grid_shape for element in elements]))
    return Pictures(images, shapes, group.num_slots)


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
    """A view's features among those that were encoded together.

    Where rows are spread they stay where they are, but for the class tokens.
    """
    if view.spread:
        return dataclasses.replace(out, cls=everywhere(out.cls)[view.rows])
    return jax.tree.map(lambda x: x[first::stride], out)


def class_tokens(
    features: Mapping[str, EncoderOutput],
    views: Mapping[str, View],
    names: Sequence[str],
) -> jax.Array:
    """Class tokens of a view and of those that extend it.

    Args:
        features: View name -> features, as `encode` gives them.
        views: View name -> view.
        names: A view's name and those that extend it: its whole batch; or either alone.

    Returns:
        `[b, d]`, float32. The order of the images is one for all views, but may depend
        on the number of devices.
    """
    cls = [features[name].cls for name in names]
    count = views[names[0]].replaced
    if not count:
        return jnp.concatenate(cls)
    whole, *extending = cls
    if not extending:
        return split_rows(whole, count)[0]
    # b2's rows are put where they belong: those of b1 need not move.
    (b2,) = extending
    rows = split_rows(np.arange(whole.shape[0]), count)[1]
    place = np.zeros(whole.shape[0], np.int32)
    place[rows] = np.arange(count)
    is_b2 = np.zeros((whole.shape[0], 1), bool)
    is_b2[rows] = True
    return jnp.where(is_b2, by_rows(b2[place]), whole)


def interleave(views: Sequence[jax.Array]) -> jax.Array:
    """V arrays as one: image 0's views, then image 1's.

    Views side by side within an image keep a batch that is sharded by images in place.

    Args:
        views: Arrays `[b, ...]`, of one shape.

    Returns:
        `[b * v, ...]`; view j is `[j::v]` of it.
    """
    return jnp.stack(views, axis=1).reshape(-1, *views[0].shape[1:])
