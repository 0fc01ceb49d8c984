"""From views to features, in as few calls of the encoder as their sizes allow."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

import jax

from ser_jax.models.outputs import Encoder, EncoderOutput, Pictures, RowEncoder
from ser_jax.models.placement import by_device
from ser_jax.views.view import Cut, View, ViewSpec, interleave

# View name -> what `RowEncoder.drop_path_factors` gives for its rows.
DropPath = Mapping[str, jax.Array]


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
        drop_path: Stochastic depth; None for none, as in a teacher.

    Returns:
        View name -> features, but of views without rows, and the running statistics
        after these views.
    """
    calls: dict[Any, list[str]] = {}
    for spec in specs:
        view = views[spec.name]
        if not view.images.shape[0]:
            continue
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
        keep = None
        if drop_path is not None:
            keep = [[drop_path[name] for name in names] for names in calls.values()]
        outputs = _by_device(own, params, together, keep)
    features: dict[str, EncoderOutput] = {}
    for outs, names in zip(outputs, calls.values(), strict=True):
        features |= zip(names, outs, strict=True)
    return features, batch_stats


def _by_device(
    encoder: RowEncoder,
    params: Any,
    calls: Sequence[Sequence[View]],
    keep: Sequence[Sequence[jax.Array]] | None,
) -> list[list[EncoderOutput]]:
    """All views in one pass, each device its own rows: the gradient is reduced once."""
    pictures = [[_pictures(view) for view in views] for views in calls]

    def own(params: Any, rows: Any) -> list[list[EncoderOutput]]:
        pictures, keep = rows
        batches = [jax.tree.map(lambda *x: interleave(x), *of) for of in pictures]
        keep = keep and [interleave(of) for of in keep]
        outs = encoder.apply({"params": params}, batches, keep, method="together")
        return [_apart(out, len(of)) for of, out in zip(pictures, outs, strict=True)]

    return by_device(own, params, (pictures, keep))


def _apart(out: EncoderOutput, num: int) -> list[EncoderOutput]:
    """Undoes `interleave`."""

    def rows(j: int) -> EncoderOutput:
        return jax.tree.map(lambda x: x[j::num], out)

    return [rows(j) for j in range(num)]


def _pictures(view: View) -> Pictures:
    if view.element is None or view.group is None:
        return Pictures(view.images)
    return Pictures(view.images, view.element.grid_shape, view.group.num_slots)


def class_tokens(
    features: Mapping[str, EncoderOutput],
    views: Mapping[str, View],
    names: Sequence[str],
    part: int | None = None,
) -> jax.Array:
    """Class tokens of a view and of the one that extends it.

    Args:
        features: View name -> features, as `encode` gives them.
        views: View name -> view.
        names: A view's name and that of the one that extends it, if one does.
        part: Which part of the batch: 0 for b1, 1 for b2, None for all of it.

    Returns:
        `[b, d]`, float32; of the whole batch, in its order.
    """
    cls = [features[name].cls for name in names if name in features]
    cut = views[names[0]].cut
    if cut is None:
        return cls[0]
    if part is not None and cut.is_exact:
        return cls[part]
    whole = cut.join(*cls) if len(cls) == 2 else cls[0]
    if part is None:
        return whole
    return Cut.exact(cut.batch_size, cut.num_equiv).split(whole)[part]
