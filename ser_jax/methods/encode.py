"""From views to features, in as few calls of the encoder as their sizes allow."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ser_jax.models.outputs import Encoder, EncoderOutput
from ser_jax.views.view import View, ViewSpec


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
            interleave([views[name].images for name in members]),
            interleave(shapes) if shapes else None,
            num_slots=group.num_slots if group else None,
            train=True,
            rngs=rngs,
            mutable=["batch_stats"],
        )
        if members[0] in running:
            batch_stats = updated.get("batch_stats", {})
        for j, name in enumerate(members):
            features[name] = jax.tree.map(lambda x, j=j, num=num: x[j::num], out)
    return features, batch_stats


def interleave(views: Sequence[jax.Array]) -> jax.Array:
    """V arrays as one: image 0's views, then image 1's.

    Views side by side within an image keep a batch that is sharded by images in place.

    Args:
        views: Arrays `[b, ...]`, of one shape.

    Returns:
        `[b * v, ...]`; view j is `[j::v]` of it.
    """
    return jnp.stack(views, axis=1).reshape(-1, *views[0].shape[1:])
