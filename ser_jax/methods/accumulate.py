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
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.interpreters import partial_eval

from ser_jax.data.crops import Batch
from ser_jax.methods.encode import DropPath
from ser_jax.methods.learner import Learner
from ser_jax.methods.variables import Features, LossAux, PyTree, Variables
from ser_jax.models.placement import by_device, by_rows, num_devices
from ser_jax.views.make import ViewMaker
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
        float32: but for rounding those of the whole batch at once.
    """
    make_views, params = learner.make_views, variables.params
    assert isinstance(make_views, ViewMaker)
    views_rng, loss_rng = rngs
    with jax.named_scope("views"):
        drawn = make_views.draw(views_rng, batch, step)
    drop_path = learner.drop_path(loss_rng, drawn)
    rows = {name: _cut(_rows_of(view), num_parts) for name, view in drawn.items()}
    keep = drop_path and {name: _cut(x, num_parts) for name, x in drop_path.items()}

    def part(
        i: jax.Array, rows: PyTree, keep: PyTree
    ) -> tuple[dict[str, View], DropPath | None]:
        """Views of a part, and its stochastic depth."""
        own = {
            name: dataclasses.replace(drawn[name], active=None, **_part(x, i))
            for name, x in rows.items()
        }
        with jax.named_scope("views"):
            views = make_views.paint(own)
        return views, keep and {name: _part(x, i) for name, x in keep.items()}

    def features(i: jax.Array) -> Features:
        return learner.features(params, variables, *part(i, rows, keep))

    heads = {name: x for name, x in params.items() if name != "encoder"}
    shapes = jax.eval_shape(features, jnp.zeros((), jnp.int32))
    leaves, tree = jax.tree.flatten(shapes)

    def loss(parts: dict[int, jax.Array], heads: PyTree) -> tuple[jax.Array, Any]:
        found = jax.tree.unflatten(tree, [parts[k] for k in range(len(leaves))])
        student, target = (
            {
                name: _joined(x, drawn[name].images.shape[0])
                for name, x in encoded.items()
            }
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

    def encode_all(
        encoder_params: PyTree, rows: tuple[PyTree, PyTree]
    ) -> dict[int, jax.Array]:
        """What is trained of the features of all parts, `[1, num_parts, c, ...]`."""

        @jax.checkpoint  # nothing of a part outlives it but what it gives
        def one(encoder_params: PyTree, i: jax.Array) -> dict[int, jax.Array]:
            found, _ = learner.encode_student(
                encoder_params, variables, *part(i, *rows)
            )
            return {k: jax.tree.leaves(found)[k][None] for k in trained}

        parts = jax.lax.map(functools.partial(one, encoder_params), numbers)
        return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), parts)

    # Each device goes through its own parts: the gradient is reduced once, at the end.
    def by_weights(encoder_params: PyTree) -> dict[int, jax.Array]:
        return by_device(encode_all, encoder_params, (rows, keep))

    _, pull_back = jax.vjp(by_weights, params["encoder"])
    (by_encoder,) = pull_back(jax.tree.map(_devices_first, by_features))
    return value, {"encoder": by_encoder, **by_heads}


def _read(
    function: Callable[..., Any], arrays: dict[int, jax.Array], *args: Any
) -> set[int]:
    """Those of the arrays that what the function returns depends on."""
    jaxpr = jax.make_jaxpr(function)(arrays, *args).jaxpr
    _, used = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return {k for k in arrays if used[k]}


def _rows_of(view: View) -> dict[str, Any]:
    """What a view has of each row, that its picture is made of."""
    return {"images": view.images, "params": view.params, "element": view.element}


def _cut(tree: Any, num_parts: int) -> Any:
    """Rows `[n, ...]`, devices dividing n, as `[devices, num_parts, c, ...]`."""

    def cut(x: jax.Array) -> jax.Array:
        x = x.reshape(num_devices(), -1, *x.shape[1:])
        if missing := -x.shape[1] % num_parts:
            edges = [(0, 0), (0, missing)] + [(0, 0)] * (x.ndim - 2)
            x = jnp.pad(x, edges, mode="edge")
        return by_rows(x.reshape(x.shape[0], num_parts, -1, *x.shape[2:]))

    return jax.tree.map(cut, tree)


def _part(tree: Any, i: jax.Array) -> Any:
    """Part i of what `_cut` gave, `[devices * c, ...]`."""

    def part(x: jax.Array) -> jax.Array:
        x = jax.lax.dynamic_index_in_dim(x, i, axis=1, keepdims=False)
        return by_rows(x.reshape(-1, *x.shape[2:]))

    return jax.tree.map(part, tree)


def _devices_first(x: jax.Array) -> jax.Array:
    """Parts `[num_parts, devices * c, ...]` as `[devices, num_parts, c, ...]`."""
    x = x.reshape(x.shape[0], num_devices(), -1, *x.shape[2:])
    return by_rows(jnp.swapaxes(x, 0, 1))


def _joined(tree: Any, num_rows: int) -> Any:
    """Parts `[num_parts, devices * c, ...]` as the rows that were cut, `[n, ...]`."""
    devices = num_devices()

    def joined(x: jax.Array) -> jax.Array:
        x = x.reshape(x.shape[0], devices, -1, *x.shape[2:]).swapaxes(0, 1)
        x = x.reshape(devices, -1, *x.shape[3:])[:, : num_rows // devices]
        return x.reshape(num_rows, *x.shape[2:])

    return jax.tree.map(joined, tree)
