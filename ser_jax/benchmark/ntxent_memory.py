"""Memory that the token-level NT-Xent needs, as planned by the compiler."""

import jax
import jax.numpy as jnp

from ser_jax.methods.losses.patch_ntxent import patch_ntxent


def ntxent_temp_bytes(
    num_images: int, *, num_slots: int = 256, dim: int = 512, block_tokens: int = 1024
) -> int:
    """Temporary memory of the loss and its gradient, with negatives from both views.

    Nothing is executed: any number of tokens can be asked about.

    Args:
        num_images: Images b.
        num_slots: Token slots n of each; the loss compares b * n tokens with 2 * b * n.
        dim: Width of the tokens.
        block_tokens: Tokens compared at a time; b * n for the dense form of the loss.

    Returns:
        Bytes beside arguments and results, on one device.

    Raises:
        NotImplementedError: If the backend does not tell.
    """

    def loss(student, target, same_view, valid):
        per_token = patch_ntxent(
            student,
            target,
            valid,
            temperature=0.5,
            same_view=same_view,
            same_view_valid=valid,
            block_tokens=block_tokens,
        )
        return per_token.mean()

    shape = (num_images, num_slots)
    tokens = jax.ShapeDtypeStruct((*shape, dim), jnp.float32)
    valid = jax.ShapeDtypeStruct(shape, jnp.bool_)
    step = jax.jit(jax.value_and_grad(loss))
    plan = step.lower(tokens, tokens, tokens, valid).compile().memory_analysis()
    if plan is None:
        raise NotImplementedError(
            f"the {jax.default_backend()} backend does not say what memory it plans; "
            "ask on a CPU (JAX_PLATFORMS=cpu)."
        )
    return plan.temp_size_in_bytes
