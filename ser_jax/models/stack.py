"""Blocks one after the other: in a loop or unrolled, and what is kept of each."""

import functools
from typing import Any

import jax

from ser_jax.models.blocks import HIDDEN, MIXED, QKV, Block
from ser_jax.models.packing import Apart, Packed

# Policy -> what the backward pass keeps of a block beside its input; None: everything.
KEPT: dict[str, tuple[str, ...] | None] = {
    "auto": None,
    "none": None,
    "products": (QKV, MIXED, HIDDEN),
    "blocks": (QKV, MIXED),
    "full": (),
}


def run_blocks(
    block: Block,
    params: Any,
    xs: tuple[jax.Array, ...],
    lie: Apart | Packed,
    keep: list[jax.Array] | None,
    remat: str | bool,
    scan: bool | str,
) -> tuple[jax.Array, ...]:
    """Runs blocks on tokens of all sizes.

    Args:
        block: The block.
        params: Of all blocks, stacked along the first axis.
        xs: Tokens, as `lie` says.
        lie: How tokens lie.
        keep: Factors on the residual branches of the images of each size, `[depth, b,
            2]`; None for 1.
        remat: See `ViT.remat`.
        scan: Whether they run in a loop.

    Returns:
        Tokens after the last block.
    """
    depth = jax.tree.leaves(params)[0].shape[0]
    if depth == 0:
        return xs
    looped = scan and depth > 1

    def body(xs, layer):
        xs, (layer_params, layer_keep) = _in_turn(xs, layer)
        factors = [None] * len(xs) if layer_keep is None else lie.factors(layer_keep)
        return tuple(
            _apply_block(block, layer_params, *of_one)
            for of_one in zip(xs, lie.images, factors, strict=True)
        ), None

    policy = remat
    if isinstance(policy, bool):
        policy = "full" if policy else "none"
    if (kept := KEPT[policy]) is not None:
        names = jax.checkpoint_policies.save_only_these_names(*kept)
        body = jax.checkpoint(body, prevent_cse=not looped, policy=names)
    if looped:
        return jax.lax.scan(body, xs, (params, keep))[0]
    leaves, tree = jax.tree.flatten((params, keep))
    layers = (jax.lax.split(leaf, [1] * depth) for leaf in leaves)
    for parts in zip(*layers, strict=True):
        xs, _ = body(xs, jax.tree.unflatten(tree, [part[0] for part in parts]))
    return xs


@jax.custom_vjp
def _in_turn(xs, layer):
    """As they are; backward, a layer's weights have their gradient before the next's.

    A compiler may else put them off until they are reduced, and keep what they need.
    """
    return xs, layer


_in_turn.defvjp(
    lambda *given: (given, None),
    lambda _, grads: jax.lax.optimization_barrier(grads),
)


@functools.partial(jax.jit, static_argnums=0, inline=True)
def _apply_block(block, params, x, images, keep):
    """Traced once for each shape, however many blocks and passes a step has."""
    return block.apply({"params": params}, x, images, keep).astype(block.dtype)
