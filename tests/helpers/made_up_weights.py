"""Arrays of small encoders under the names of other packages."""

import numpy as np

from ser_jax.models.pos_embed import sincos_table


def vit(width=8, depth=2, side=2, patch=4, *, entry=True, sincos=False, hidden=0):
    """A ViT's arrays under timm's names."""
    draw, hidden = np.random.default_rng(0), hidden or 2 * width

    def array(*shape):
        return draw.normal(0, 0.1, shape).astype(np.float32)

    table = sincos_table(side, width) if sincos else array(side**2, width)
    cls_entry = np.zeros((1, width), np.float32) if sincos else array(1, width)
    arrays = {
        "patch_embed.proj.weight": array(width, 3, patch, patch),
        "patch_embed.proj.bias": array(width),
        "cls_token": array(1, 1, width),
        "pos_embed": np.concatenate([cls_entry, table] if entry else [table])[None],
        "norm.weight": array(width),
        "norm.bias": array(width),
    }
    for i in range(depth):
        for name, d_in, d_out in (
            ("attn.qkv", width, 3 * width),
            ("attn.proj", width, width),
            ("mlp.fc1", width, hidden),
            ("mlp.fc2", hidden, width),
        ):
            arrays[f"blocks.{i}.{name}.weight"] = array(d_out, d_in)
            arrays[f"blocks.{i}.{name}.bias"] = array(d_out)
        for name in ("norm1", "norm2"):
            arrays[f"blocks.{i}.{name}.weight"] = array(width)
            arrays[f"blocks.{i}.{name}.bias"] = array(width)
    return arrays


def late(**sizes):
    """The same of SER: the class token joins late."""
    arrays = vit(entry=False, **sizes)
    norm = {x: arrays[f"norm.{x}"] for x in ("weight", "bias")}
    return arrays | {f"norm_equiv.{x}": array for x, array in norm.items()}


def prefixed(arrays, prefix):
    return {f"{prefix}{name}": array for name, array in arrays.items()}


def hugging_face():
    """Arrays of a ViT under the names of transformers."""
    names = {
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "attn.proj": "attention.output.dense",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
    }
    outer = {
        "patch_embed.proj": "embeddings.patch_embeddings.projection",
        "norm": "layernorm",
    }
    found = {}
    for name, array in vit().items():
        stem, _, leaf = name.rpartition(".")
        if name in ("cls_token", "pos_embed"):
            long = {"pos_embed": "position_embeddings"}.get(name, name)
            found[f"embeddings.{long}"] = array
        elif stem in outer:
            found[f"{outer[stem]}.{leaf}"] = array
        else:
            _, i, part = stem.split(".", 2)
            begin = f"encoder.layer.{i}"
            if part == "attn.qkv":
                for kind, rows in zip(
                    ("query", "key", "value"), np.split(array, 3), strict=True
                ):
                    found[f"{begin}.attention.attention.{kind}.{leaf}"] = rows
            else:
                found[f"{begin}.{names[part]}.{leaf}"] = array
    return found
