"""The state of training, and one step as a pure function of state and batch."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from ser_jax.data.crops import Batch
from ser_jax.methods import accumulate
from ser_jax.methods.accumulate import Term
from ser_jax.methods.learner import Learner
from ser_jax.methods.metric import Metric, Metrics, Panel
from ser_jax.methods.variables import EQUIV_WEIGHT, LOSSES, LossAux, Variables
from ser_jax.models.outputs import BLOCKS


@flax.struct.dataclass
class TrainState:
    """Everything a checkpoint must hold to go on exactly.

    Attributes:
        step: Optimizer steps done, `[]`, int32.
        variables: Weights, target weights, statistics, method state.
        opt_state: State of the optimizer.
    """

    step: jax.Array
    variables: Variables
    opt_state: optax.OptState


def create_state(
    rng: jax.Array,
    learner: Learner,
    optimizer: optax.GradientTransformation,
    batch: Batch,
    weights: Any = None,
) -> TrainState:
    """Fresh state at step 0.

    Args:
        rng: Key.
        learner: What is trained.
        optimizer: Its optimizer.
        batch: A batch or its shapes; only shapes and dtypes are used.
        weights: As of `Learner.init`.

    Returns:
        The state. Call it inside `jit`.
    """
    variables = learner.init(rng, batch, weights)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        variables=variables,
        opt_state=optimizer.init(variables.params),
    )


_NORM = Panel("gradient norm", scale="log")
_BLOCK_NORM = Panel("gradient norm by block", scale="log", is_graded=True)


def _block_norm(block: int) -> Metric:
    """Of one block, the first 1."""
    return Metric(f"grad_norm_block_{block:02d}", _BLOCK_NORM, f"block {block}")


GRAD_NORM = Metric("grad_norm", _NORM, "total")
GRAD_NORM_EQUIV = Metric("grad_norm_equiv", _NORM, "equivariance", is_compared=True)
GRAD_NORMS = (GRAD_NORM, GRAD_NORM_EQUIV, *(_block_norm(i) for i in range(1, 49)))
LR = Metric("lr", Panel("learning rate", is_noisy=False), "learning rate")
EMA_MOMENTUM = Metric(
    "ema_momentum", Panel("EMA momentum of the target", is_noisy=False), "EMA"
)
SCHEDULES = (LR, EMA_MOMENTUM, EQUIV_WEIGHT)

TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def _value_and_grad(
    learner: Learner,
    rng: jax.Array,
    accumulate_steps: int,
    term: Term,
    state: TrainState,
    batch: Batch,
) -> tuple[Variables, tuple[jax.Array, Any], Any]:
    """Variables with the target moved if it moves first; a term's value; its gradient.

    Arguments as of `accumulate.value_and_grad` and `make_train_step`.
    """
    variables, step = state.variables, state.step
    rngs = jax.random.split(jax.random.fold_in(rng, step))
    target_params = learner.advance_target(
        "before_forward", variables.target_params, variables.params, step
    )
    variables = dataclasses.replace(variables, target_params=target_params)
    if accumulate_steps > 1:
        value, grads = accumulate.value_and_grad(
            *(learner, term, variables, batch, (rngs[0], rngs[1]), step),
            num_parts=accumulate_steps,
        )
        return variables, value, grads
    with jax.named_scope("views"):
        views = learner.make_views(rngs[0], batch, step)

    def loss(params: Any) -> tuple[jax.Array, Any]:
        return term(*learner.loss(params, variables, views, rngs[1], step))

    value, grads = jax.value_and_grad(loss, has_aux=True)(variables.params)
    return variables, value, grads


def make_train_step(
    learner: Learner,
    optimizer: optax.GradientTransformation,
    learning_rate: optax.Schedule,
    rng: jax.Array,
    accumulate_steps: int = 1,
) -> TrainStep:
    """The step to jit, with the state donated.

    Order: views; EMA, if the objective moves its target before the forward pass; loss
    and gradient; optimizer; EMA, if after the update; statistics and method state.

    Args:
        learner: What is trained.
        optimizer: Its optimizer.
        learning_rate: The optimizer's schedule, for the log.
        rng: Key of the run. All that is random in a step comes from it and the step's
            number.
        accumulate_steps: Into how many parts each device's rows are cut that are
            encoded one after the other: see `methods/accumulate.py`.

    Returns:
        `(state, batch) -> (new state, metrics)`; metrics are float32 scalars.
    """

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        step = state.step
        variables, (loss, aux), grads = _value_and_grad(
            learner, rng, accumulate_steps, lambda *loss: loss, state, batch
        )
        with jax.named_scope("optimizer"):
            updates, opt_state = optimizer.update(
                grads, state.opt_state, variables.params
            )
            params = optax.apply_updates(variables.params, updates)
        target_params = learner.advance_target(
            "after_update", variables.target_params, params, step
        )
        metrics = aux.metrics | {
            EQUIV_WEIGHT.name: jnp.asarray(learner.equiv_weight(step), jnp.float32),
            GRAD_NORM.name: optax.tree.norm(grads),
            LR.name: learning_rate(step),
        }
        losses = (loss, aux.loss_inv, aux.loss_equiv)
        metrics |= {m.name: value for m, value in zip(LOSSES, losses, strict=True)}
        metrics |= _block_norms(grads["encoder"])
        if learner.target_momentum is not None:
            metrics[EMA_MOMENTUM.name] = learner.target_momentum(step)
        new_variables = dataclasses.replace(
            variables,
            params=params,
            target_params=target_params,
            batch_stats=aux.batch_stats,
            method_state=aux.method_state,
        )
        return TrainState(step + 1, new_variables, opt_state), metrics

    return train_step


def _block_norms(grads: Mapping[str, Any]) -> Metrics:
    """Gradient norm of each block, the first "grad_norm_block_01"; {} of a ResNet.

    A ViT's blocks are stacked along the first axis, which is all this needs to know.
    """
    if BLOCKS not in grads:
        return {}
    squares = [
        jnp.sum(jnp.square(leaf.reshape(leaf.shape[0], -1)), axis=1)
        for leaf in jax.tree.leaves(grads[BLOCKS])
    ]
    norms = jnp.sqrt(sum(squares))  # [depth]
    return {_block_norm(i).name: norm for i, norm in enumerate(norms, start=1)}


def make_equiv_grad_norm(
    learner: Learner, rng: jax.Array, accumulate_steps: int = 1
) -> Callable[[TrainState, Batch], Metrics]:
    """Measures how strongly the equivariance term alone pulls on the weights.

    A regularizer that lost its gradient looks fine in every loss curve; here it reads
    0. It is a function of its own, called at logged steps, because the term's share of
    the summed gradient cannot be told apart without a second backward pass.

    Args:
        learner: What is trained.
        rng: Key of the run, as given to `make_train_step`.
        accumulate_steps: As given to `make_train_step`.

    Returns:
        `(state, batch) -> {"grad_norm_equiv": []}`: norm of the gradient of
        weight * loss_equiv, float32, on the views this step will train on.
    """

    def equiv_grad_norm(state: TrainState, batch: Batch) -> Metrics:
        weight = learner.equiv_weight(state.step)

        def term(_: jax.Array, aux: LossAux) -> tuple[jax.Array, None]:
            return weight * aux.loss_equiv, None

        *_, grads = _value_and_grad(learner, rng, accumulate_steps, term, state, batch)
        return {GRAD_NORM_EQUIV.name: optax.tree.norm(grads)}

    return equiv_grad_norm
