"""The gradient of the whole batch's loss, with the activations of a part of it.

An image's features depend on no other image, the loss on all of them. So a step is

    1. the features of one part of the batch after the other, of student and target
    2. the loss of all features together, its gradient by them and by the heads
    3. each part's student once more, and by its features' gradient that of its weights

and negatives, the heads' BatchNorm, DINO's center and all that is logged are the whole
batch's. It costs a second forward pass of the student, and all views are made twice.

A part holds the same number of each device's rows of a view, so that no picture moves.
Where the parts do not divide these, the last row is repeated, and what it gives is
left out.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.interpreters import partial_eval

from ser_jax.data.crops import Batch
from ser_jax.methods.encode import DropPath
from ser_jax.methods.learner import Learner
from ser_jax.methods.variables import Features, LossAux, PyTree, Variables
from ser_jax.models.placement import by_rows, num_devices
from ser_jax.views.make import Sketch, ViewMaker
from ser_jax.views.view import View

# Loss and what comes with it -> what is differentiated, `[]`, and what is kept.
Term = Callable[[jax.Array, LossAux], tuple[jax.Array, Any]]


def value_and_grad(
    learner: Learner,
    term: Term,
    variables: Variables,
    batch: Batch,
    rngs: tuple[jax.Array, jax.Array],
    step: jax.Array,
    *,
    num_parts: int,
) -> tuple[tuple[jax.Array, Any], PyTree]:
    """A term of the loss and its gradient, the batch encoded part by part.

    Args:
        learner: What is trained. Its encoder has no BatchNorm, and its views are made
            by a `ViewMaker`.
        term: Of the loss and what comes with it.
        variables: Weights and what else is carried from step to step.
        batch: The host's crops.
        rngs: Keys of the views and of the loss.
        step: Optimizer step, `[]`, int32.
        num_parts: Into how many parts each device's rows are cut.

    Returns:
        What `term` gives and its gradient by `variables.params`, summed in their type,
        float32: but for rounding those of the whole batch at once, and for stochastic
        depth where a part's rows are padded or b1 is whole, which draws anew.
    """
    make_views, params = learner.make_views, variables.params
    assert isinstance(make_views, ViewMaker)
    views_rng, loss_rng = rngs
    with jax.named_scope("views"):
        sketches = make_views.draw(views_rng, batch, step, apart=True)
        rows = {name: _Rows.of(x, num_parts) for name, x in sketches.items()}
    drawn = {name: x.view for name, x in rows.items()}

    def views(i: jax.Array) -> dict[str, View]:
        with jax.named_scope("views"):
            return make_views.paint({name: x.part(i) for name, x in rows.items()})

    def drop_path(i: jax.Array) -> DropPath:
        """Stochastic depth is drawn for all parts, of which this is one."""

        def draw(call: int, num_rows: int) -> jax.Array | None:
            drawn = learner.drop_path(loss_rng)(call, num_parts * num_rows)
            return None if drawn is None else _part(_cut(drawn, num_parts), i)

        return draw

    def features(i: jax.Array) -> Features:
        return learner.features(params, variables, views(i), drop_path(i))

    heads = {name: x for name, x in params.items() if name != "encoder"}
    shapes = jax.eval_shape(features, jnp.zeros((), jnp.int32))
    leaves, tree = jax.tree.flatten(shapes)

    def loss(parts: dict[int, jax.Array], heads: PyTree) -> tuple[jax.Array, Any]:
        found = jax.tree.unflatten(tree, [parts[k] for k in range(len(leaves))])
        student, target = (
            {name: rows[name].whole(x) for name, x in encoded.items()}
            for encoded in (found.student, found.target)
        )
        found = found.replace(student=student, target=target)
        return term(*learner.loss_of(found, heads, variables, drawn, step))

    # Of what the encoder returns only what the term reads is kept of all parts.
    empty = {k: jnp.zeros((num_parts, *x.shape), x.dtype) for k, x in enumerate(leaves)}
    read = _read(loss, empty, heads)
    trained = {
        k
        for k in read
        if k < len(jax.tree.leaves(shapes.student))
        and jnp.issubdtype(leaves[k].dtype, jnp.floating)
    }

    def encode(_: None, i: jax.Array) -> tuple[None, dict[int, jax.Array]]:
        found = jax.tree.leaves(features(i))
        return None, {k: found[k] for k in read}

    numbers = jnp.arange(num_parts)
    _, parts = jax.lax.scan(encode, None, numbers)

    def loss_of(by: dict[int, jax.Array], heads: PyTree) -> tuple[jax.Array, Any]:
        return loss(empty | parts | by, heads)

    value, (by_features, by_heads) = jax.value_and_grad(
        loss_of, argnums=(0, 1), has_aux=True
    )({k: parts[k] for k in trained}, heads)

    def add(total: PyTree, of_part: tuple[jax.Array, Any]) -> tuple[PyTree, None]:
        i, by_part = of_part
        seen = views(i)

        def student(encoder_params: PyTree) -> dict[int, jax.Array]:
            found, _ = learner.encode_student(
                encoder_params, variables, seen, drop_path(i)
            )
            return {k: jax.tree.leaves(found)[k] for k in trained}

        _, pull_back = jax.vjp(student, params["encoder"])
        return jax.tree.map(jnp.add, total, *pull_back(by_part)), None

    none = jax.tree.map(jnp.zeros_like, params["encoder"])
    by_encoder, _ = jax.lax.scan(add, none, (numbers, by_features))
    return value, {"encoder": by_encoder, **by_heads}


def _read(
    function: Callable[..., Any], arrays: dict[int, jax.Array], *args: Any
) -> set[int]:
    """Those of the arrays that what the function returns depends on."""
    jaxpr = jax.make_jaxpr(function)(arrays, *args).jaxpr
    _, used = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return {k for k in arrays if used[k]}


@dataclasses.dataclass(frozen=True)
class _Rows:
    """A view's rows, cut into parts.

    Attributes:
        sketch: The view; its arrays of rows are `[devices, num_parts, c, ...]`.
        view: The same view, uncut; rows that were spread are those of its images.
        num_rows: Rows that were cut, some of them padding.
    """

    sketch: Sketch
    view: View
    num_rows: int

    @classmethod
    def of(cls, sketch: Sketch, num_parts: int) -> "_Rows":
        """Cuts a view."""
        rows = (sketch.view.images, sketch.params, sketch.element)
        images, params, element = jax.tree.map(lambda x: _cut(x, num_parts), rows)
        view = dataclasses.replace(sketch.view, spread=0)
        part = dataclasses.replace(
            view, images=images, params=params, element=element, active=None, replaced=0
        )
        num_rows = sketch.view.images.shape[0]
        return cls(Sketch(part, params, element), view, num_rows)

    def part(self, i: jax.Array) -> Sketch:
        """Part i, `[devices * c, ...]`."""
        return jax.tree.map(lambda x: _part(x, i), self.sketch)

    def whole(self, parts: Any) -> Any:
        """Features of all parts, `[num_parts, devices * c, ...]`, as of the view."""
        active = self.view.active
        num_images = self.num_rows if active is None else active.shape[0]
        return jax.tree.map(lambda x: _joined(x, self.num_rows)[:num_images], parts)


def _cut(x: jax.Array, num_parts: int) -> jax.Array:
    """Rows `[n, ...]`, devices dividing n, as `[devices, num_parts, c, ...]`."""
    x = x.reshape(num_devices(), -1, *x.shape[1:])
    if missing := -x.shape[1] % num_parts:
        edges = [(0, 0), (0, missing)] + [(0, 0)] * (x.ndim - 2)
        x = jnp.pad(x, edges, mode="edge")
    return by_rows(x.reshape(x.shape[0], num_parts, -1, *x.shape[2:]))


def _part(x: jax.Array, i: jax.Array) -> jax.Array:
    """Part i of what `_cut` gave, `[devices * c, ...]`."""
    x = jax.lax.dynamic_index_in_dim(x, i, axis=1, keepdims=False)
    return by_rows(x.reshape(-1, *x.shape[2:]))


def _joined(x: jax.Array, num_rows: int) -> jax.Array:
    """Parts `[num_parts, devices * c, ...]` as the rows that were cut, `[n, ...]`."""
    devices = num_devices()
    x = x.reshape(x.shape[0], devices, -1, *x.shape[2:]).swapaxes(0, 1)
    x = x.reshape(devices, -1, *x.shape[3:])[:, : num_rows // devices]
    return x.reshape(num_rows, *x.shape[2:])
