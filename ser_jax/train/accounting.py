"""What a run spends on an image: views, tokens, passes, FLOPs, parameters.

Methods differ in all of these; runs compare fairly where these numbers match.
"""

import collections
import math
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from ser_jax.methods.variables import Variables
from ser_jax.models.outputs import Encoder
from ser_jax.train.experiment import Experiment
from ser_jax.train.flops import count_flops
from ser_jax.train.step import make_train_step
from ser_jax.views.view import View, equiv_count


def account(experiment: Experiment) -> dict[str, Any]:
    """What one training step costs; it is traced once, nothing is compiled or run.

    Args:
        experiment: What is trained.

    Returns:
        Plain numbers and texts by name:

        * `batch_size`, global, and `epochs` of the run.
        * `views`: an image's views and their sides in pixels ("2 x 224 + 4 x 96");
          `num_views`, `num_views_by_px`: the same as numbers. A view that stands in for
          another on a share of the batch is no further view; `equiv_share` is that
          share.
        * `tokens_per_image_student`, `_target`: tokens of all its views, padding
          included, the class token in the blocks it is there for (mean over blocks). Of
          a ResNet: cells of its last map.
        * `forward_passes_student`, `_target`: views of an image that the encoder sees;
          `backward_passes`: those that are differentiated, all of the student's.
        * `flops_per_step`: of the global batch, as `count_flops` counts, without what
          `remat` recomputes; `flops_per_image`.
        * `parameters`: `encoder`, as used after training; `objective`: its heads;
          `regularizer`: its heads, and its norms in the encoder; `target`: EMA copies.
    """
    step, state, batch = step_and_shapes(experiment)
    learner, batch_size = experiment.learner, experiment.batch_size
    flops = count_flops(step, state, batch)
    views = _abstract_views(experiment)
    specs = learner.regularizer.views(learner.objective.views)
    extending = {spec.name for spec in specs if spec.extends}
    sides = [v.images.shape[1] for name, v in views.items() if name not in extending]
    by_px = dict(sorted(collections.Counter(sides).items(), reverse=True))
    equiv_rows = {views[name].images.shape[0] for name in extending}

    student = list(views.values())
    target: list[View] = []
    if learner.objective.target is not None:  # it encodes all geometric views too
        target = [views[name] for name in learner.objective.target.views]
        target += [view for view in student if view.element is not None]

    def passes(of: Iterable[View]) -> float:
        return sum(view.images.shape[0] for view in of) / batch_size

    def tokens(of: Iterable[View]) -> float:
        return _tokens(experiment, of)

    resolved = experiment.resolved
    return {
        "batch_size": batch_size,
        "epochs": resolved.stop_step / resolved.steps_per_epoch,
        "views": " + ".join(f"{num} x {px}" for px, num in by_px.items()),
        "num_views": len(sides),
        "num_views_by_px": by_px,
        "equiv_share": max(equiv_rows, default=0) / batch_size,
        "tokens_per_image_student": tokens(student),
        "tokens_per_image_target": tokens(target),
        "forward_passes_student": passes(student),
        "forward_passes_target": passes(target),
        "backward_passes": passes(student),
        "flops_per_step": flops,
        "flops_per_image": flops / batch_size,
        "parameters": count_parameters(experiment, state.variables),
    }


def student_tokens(experiment: Experiment) -> float:
    """Tokens of an image's views that the student encodes, padding included.

    Args:
        experiment: What is trained.

    Returns:
        The mean over the batch.
    """
    return _tokens(experiment, _abstract_views(experiment).values())


def _abstract_views(experiment: Experiment) -> dict[str, View]:
    return jax.eval_shape(
        experiment.learner.make_views,
        experiment.step_rng,
        experiment.abstract_batch(),
        jnp.zeros((), jnp.int32),
    )


def _tokens(experiment: Experiment, views: Iterable[View]) -> float:
    """Tokens of these views for an image of the batch."""
    encoder = experiment.learner.encoder
    total = sum(v.images.shape[0] * _tokens_in(encoder, v) for v in views)
    return total / experiment.batch_size


def step_and_shapes(experiment: Experiment, **encoder: Any) -> tuple[Any, Any, Any]:
    """The training step and the shapes of its arguments, for counting FLOPs.

    What `remat` recomputes is the price of memory, not part of the model's FLOPs: it is
    off in this step. Nor are kernels in it, whose inside a count does not see.

    Args:
        experiment: What is trained.
        **encoder: Changes to the encoder's attributes; those it does not have are left
            out (a ResNet has no `scan`).

    Returns:
        The step, its state and its batch, for `count_flops(*step_and_shapes(...))`.
    """
    plain = {"remat": "none", "attention": "xla"}
    changed = experiment.with_encoder(**(plain | encoder))
    step = make_train_step(
        changed.learner,
        changed.optimizer,
        changed.learning_rate,
        changed.step_rng,
    )
    looped = changed.with_encoder(scan=True)  # same shapes, and one block to trace
    state = jax.eval_shape(looped.init_state, looped.init_rng)
    return step, state, changed.abstract_batch()


def _tokens_in(encoder: Encoder, view: View) -> float:
    """Tokens of one image of a view, mean over the blocks."""
    _, height, width, _ = view.images.shape
    cells = (height // encoder.patch_size) * (width // encoder.patch_size)
    if encoder.cls_insert is None:  # convolutions run over the whole canvas
        return cells
    slots = view.group.num_slots if view.group else cells
    return slots + (encoder.depth - encoder.cls_insert) / encoder.depth


def count_parameters(experiment: Experiment, variables: Variables) -> dict[str, int]:
    """Parameters by what they are there for.

    Args:
        experiment: What is trained.
        variables: Its variables, or their shapes.

    Returns:
        Numbers by name: see "parameters" of `account`.
    """
    params = variables.params
    encoder = experiment.learner.encoder
    alone = encoder.clone(grid_layers=(), cls_layers=())  # without the norms these add
    side = encoder.image_size
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    kept = _count(jax.eval_shape(alone.init, experiment.init_rng, image)["params"])
    return {
        "encoder": kept,
        "objective": _count(params["objective"]),
        "regularizer": _count(params.get("regularizer", {}))
        + _count(params["encoder"])
        - kept,
        "target": _count(variables.target_params),
    }


def _count(params: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def shared_crop_images(experiment: Experiment) -> int:
    """Images of a batch whose views differ by a group element, b2.

    Args:
        experiment: What is trained.

    Returns:
        Their number; 0 where no term wants any.
    """
    learner = experiment.learner
    if not any(spec.extends for spec in learner.specs):
        return 0
    return equiv_count(experiment.batch_size, learner.regularizer.share)
