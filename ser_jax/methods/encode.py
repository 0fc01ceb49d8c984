"""From views to features, in as few calls of the encoder as their sizes allow."""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from ser_jax.models.outputs import Encoder, EncoderOutput, Pictures, RowEncoder
from ser_jax.models.placement import by_device, by_rows, everywhere, padded
from ser_jax.views.view import View, ViewSpec, join_rows, place_of_rows, split_rows

# Number of the call, rows -> what `RowEncoder.drop_path_factors` gives for these.
DropPath = Callable[[int, int], jax.Array | None]


def encode(
    encoder: Encoder,
    params: Any,
    batch_stats: Any,
    views: Mapping[str, View],
    specs: Sequence[ViewSpec],
    *,
    running: Collection[str] = (),
    joint: bool = False,
    drop_path: DropPath | None = None,
) -> tuple[dict[str, EncoderOutput], Any]:
    """Features of some views, and the encoder's new BatchNorm statistics.

    All views are encoded in one pass. Only with BatchNorm in the encoder does each view
    have a call, and statistics, of its own, as in MoCo v3 and BYOL; but those of one
    `statistics_group` share theirs, as the local views of DINO, and if `joint` all of
    one size that are of no group, as in SimCLR and EquiMod.

    Args:
        encoder: The encoder.
        params: Its weights.
        batch_stats: Its running statistics; {} if it has none.
        views: View name -> view.
        specs: Which of them to encode.
        running: Names of the views whose statistics enter the running ones, which are
            those of evaluation.
        joint: See `Objective.joint_batch_norm`.
        drop_path: Draws stochastic depth; None for none, as in a teacher.

    Returns:
        View name -> features, and the running statistics after these views. Those of a
        view that is `replaced` are of all its rows, b2's among them; of one that is
        `spread`, but for `cls`, of all rows that were encoded together. `class_tokens`
        and `ser_directions.directions` take them so.
    """
    calls: dict[Any, list[str]] = {}
    for spec in specs:
        view = views[spec.name]
        key: tuple[Any, ...] = (view.images.shape, view.group)
        if encoder.has_batch_norm:
            apart = "" if spec.statistics_group or joint else spec.name
            key = (*key, spec.statistics_group, apart)
        calls.setdefault(key, []).append(spec.name)
    together = [[views[name] for name in members] for members in calls.values()]
    outputs: list[list[EncoderOutput]] = []  # of each call, of each of its views
    if encoder.has_batch_norm:
        for members, names in zip(together, calls.values(), strict=True):
            batch = jax.tree.map(lambda *x: interleave(x), *map(_pictures, members))
            out, updated = encoder.apply(
                {"params": params, "batch_stats": batch_stats},
                batch.images,
                batch.grid_shape,
                num_slots=batch.num_slots,
                train=True,
                mutable=["batch_stats"],
            )
            outputs.append(_apart(out, len(names)))
            if names[0] in running:
                batch_stats = updated.get("batch_stats", {})
    else:
        own = cast(RowEncoder, encoder)
        outputs = _by_device(own, params, together, drop_path)
    features: dict[str, EncoderOutput] = {}
    for outs, names in zip(outputs, calls.values(), strict=True):
        for name, out in zip(names, outs, strict=True):
            view = views[name]
            if view.spread:  # all rows stay where they are, but for the class tokens
                out = dataclasses.replace(
                    out, cls=everywhere(out.cls, view.rows.stop)[view.rows]
                )
            features[name] = out
    return features, batch_stats


def _by_device(
    encoder: RowEncoder,
    params: Any,
    calls: Sequence[Sequence[View]],
    drop_path: DropPath | None,
) -> list[list[EncoderOutput]]:
    """All views in one pass, each device its own rows: the gradient is reduced once."""
    pictures = [
        [_spread(views)] if views[0].spread else [_pictures(view) for view in views]
        for views in calls
    ]
    keep: list[list[jax.Array]] | None = None
    for i, of_call in enumerate(pictures):
        num = len(of_call)
        drawn = drop_path and drop_path(i, of_call[0].images.shape[0] * num)
        if drawn is None:
            break
        draws = [drawn[j::num] for j in range(num)]
        if count := calls[i][0].replaced:  # each row's is the one it would have in b1
            draws = [x[place_of_rows(x.shape[0], count)] for x in draws]
        keep = [*(keep or []), draws]

    def own(params: Any, rows: Any) -> list[list[EncoderOutput]]:
        pictures, keep = rows
        batches = [jax.tree.map(lambda *x: interleave(x), *of) for of in pictures]
        keep = keep and [interleave(of) for of in keep]
        outs = encoder.apply({"params": params}, batches, keep, method="together")
        return [_apart(out, len(of)) for of, out in zip(pictures, outs, strict=True)]

    outputs = by_device(own, params, (pictures, keep))
    return [
        outs * len(views) if views[0].spread else outs
        for outs, views in zip(outputs, calls, strict=True)
    ]


def _apart(out: EncoderOutput, num: int) -> list[EncoderOutput]:
    """Undoes `interleave`."""

    def rows(j: int) -> EncoderOutput:
        return jax.tree.map(lambda x: x[j::num], out)

    return [rows(j) for j in range(num)]


def _pictures(view: View) -> Pictures:
    if view.element is None or view.group is None:
        return Pictures(view.images)
    return Pictures(view.images, view.element.grid_shape, view.group.num_slots)


def _spread(views: Sequence[View]) -> Pictures:
    """Views that are rows of one array, see `View.spread`."""
    assert views[0].spread == len(views), "those that were spread come together"
    first = _pictures(views[0])
    images = first.images
    number = jnp.arange(images.shape[0])[:, None, None, None] % len(views)
    for j, view in enumerate(views[1:], start=1):
        images = jnp.where(number == j, view.images, images)
    shapes = interleave([view.element.grid_shape for view in views if view.element])
    shapes = padded(shapes, images.shape[0])
    return dataclasses.replace(first, images=images, grid_shape=shapes)


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
        `[b, d]`, float32, in the order of the batch.
    """
    first, *rest = (features[name].cls for name in names)
    count = views[names[0]].replaced
    if not rest:
        return split_rows(first, count)[0] if count else first
    (b2,) = rest
    if not count:
        return join_rows(first, b2)
    # b2's rows are put where they belong: those of b1 need not move.
    place = place_of_rows(first.shape[0], count) - (first.shape[0] - count)
    return jnp.where(place[:, None] >= 0, by_rows(b2[np.maximum(place, 0)]), first)


def interleave(views: Sequence[jax.Array]) -> jax.Array:
    """V arrays as one: image 0's views, then image 1's.

    Views side by side within an image keep a batch that is sharded by images in place.

    Args:
        views: Arrays `[b, ...]`, of one shape.

    Returns:
        `[b * v, ...]`; view j is `[j::v]` of it.
    """
    return jnp.stack(views, axis=1).reshape(-1, *views[0].shape[1:])
