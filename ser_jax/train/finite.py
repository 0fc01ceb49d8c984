"""Whether a state is worth keeping."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

ADVICE = (
    "Start anew in another --workdir with a lower optimizer.base_lr or a longer "
    "optimizer.warmup_epochs."
)


@jax.jit
def _are_finite(arrays: list[jax.Array]) -> jax.Array:
    return jnp.stack([jnp.isfinite(x).all() for x in arrays])


def check_finite(state: Any, step: int) -> None:
    """Raises if a number in a state is infinite or not a number.

    A step's loss and gradient are of the weights before it: they cannot tell.

    Args:
        state: Arrays.
        step: The step they are of, for the message.

    Raises:
        FloatingPointError: Naming some of the arrays.
    """
    named = [
        (path, leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    ]
    finite = np.asarray(_are_finite([leaf for _, leaf in named]))
    if finite.all():
        return
    bad = [jax.tree_util.keystr(named[i][0]) for i in np.flatnonzero(~finite)]
    raise FloatingPointError(
        f"training has diverged: after step {step} {len(bad)} of {len(named)} arrays "
        f"are not finite, {', '.join(bad[:3])} among them. {ADVICE}"
    )
