"""The state of training: arrays only."""

import flax.struct
import jax
import jax.numpy as jnp
import optax

from ser_jax.methods.learner import Batch, Learner, Variables


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


def create(
    rng: jax.Array,
    learner: Learner,
    optimizer: optax.GradientTransformation,
    batch: Batch,
) -> TrainState:
    """Fresh state at step 0.

    Args:
        rng: Key.
        learner: What is trained.
        optimizer: Its optimizer.
        batch: A batch or its shapes; only shapes and dtypes are used.

    Returns:
        The state. Call it inside `jit`.
    """
    variables = learner.init(rng, batch)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        variables=variables,
        opt_state=optimizer.init(variables.params),
    )
