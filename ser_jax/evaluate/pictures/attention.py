"""What the class token of a ViT looks at."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ser_jax.models.outputs import BLOCKS, FINAL_NORM, Encoder
from ser_jax.models.vit import ViT


def cls_attention(
    encoder: Encoder, variables: Mapping[str, Any], images: jax.Array
) -> jax.Array:
    """The class token's attention over the patches in the last block.

    Training's attention is fused and keeps no weights, so that of one query is computed
    from the last block's parameters: the blocks before it run as a shorter ViT whose
    final norm is the last block's first.

    Args:
        encoder: A ViT whose class token joins before the last block.
        variables: Its variables.
        images: Normalised pictures, `[b, h, w, 3]`, float.

    Returns:
        `[b, heads, rows, columns]`, float32; the sum over patches falls short of 1 by
        what the class token pays to itself.

    Raises:
        ValueError: If there is no class token, or it joins only at the last block.

    Reference:
        DINO (arXiv 2104.14294), Fig. 1.
    """
    if encoder.cls_insert is None or encoder.cls_insert == encoder.depth - 1:
        raise ValueError(
            f"the class token joins after block {encoder.cls_insert} of "
            f"{encoder.depth}: its attention is read in a model where it passes two "
            "blocks or more."
        )
    params = variables["params"]
    last = jax.tree.map(lambda x: x[-1], params[BLOCKS])
    before: ViT = encoder.clone(depth=encoder.depth - 1, grid_layers=(), cls_layers=())
    blocks = jax.tree.map(lambda x: x[:-1], params[BLOCKS])
    kept = {BLOCKS: blocks, FINAL_NORM: last["norm1"]}
    out: Any = before.apply({"params": {**params, **kept}}, images)

    x = jnp.concatenate([out.cls[:, None], out.tokens], axis=1)  # [b, 1 + n, d]
    qkv = last["attn"]["qkv"]
    packed = x @ qkv["kernel"] + qkv["bias"][None, None]
    heads = packed.reshape(*x.shape[:2], 3, before.num_heads, -1)  # [b, 1 + n, 3, h, e]
    query, keys = heads[:, 0, 0], heads[:, :, 1]  # [b, h, e], [b, 1 + n, h, e]
    logits = jnp.einsum("bhe,bnhe->bhn", query, keys) / jnp.sqrt(query.shape[-1])
    weights = jax.nn.softmax(logits, axis=-1)[:, :, 1:]  # [b, h, n]
    rows, cols = (side // encoder.patch_size for side in images.shape[1:3])
    return weights.reshape(*weights.shape[:2], rows, cols)
