"""PyTorch state dicts of the reference data as parameters of this package."""

import numpy as np


def dense(sd: dict, name: str) -> dict:
    """A linear layer or 1 x 1 convolution."""
    weight = sd[f"{name}.weight"]
    params = {"kernel": weight.reshape(weight.shape[0], -1).T}
    if f"{name}.bias" in sd:
        params["bias"] = sd[f"{name}.bias"]
    return params


def norm(sd: dict, name: str) -> dict:
    return {"scale": sd[f"{name}.weight"], "bias": sd[f"{name}.bias"]}


def patch_embed(sd: dict, name: str) -> dict:
    weight = sd[f"{name}.weight"].transpose(2, 3, 1, 0)  # [p, p, 3, d]
    return {
        "kernel": weight.reshape(-1, weight.shape[-1]),
        "bias": sd[f"{name}.bias"],
    }


def vit(sd: dict, equiv_layer: int | None) -> dict:
    """ViT parameters; keys that `sd` lacks (recorded gradients) are left out."""
    depth = 1 + max(int(k.split(".")[1]) for k in sd if k.startswith("blocks."))
    blocks = [
        {
            "norm1": norm(sd, f"blocks.{i}.norm1"),
            "attn": {
                "qkv": dense(sd, f"blocks.{i}.attn.qkv"),
                "proj": dense(sd, f"blocks.{i}.attn.proj"),
            },
            "norm2": norm(sd, f"blocks.{i}.norm2"),
            "mlp": {
                "fc1": dense(sd, f"blocks.{i}.mlp.fc1"),
                "fc2": dense(sd, f"blocks.{i}.mlp.fc2"),
            },
        }
        for i in range(depth)
    ]
    params = {
        "cls_token": sd["cls_token"],
        "blocks": stack(blocks),
        "norm": norm(sd, "norm"),
    }
    if "patch_embed.proj.weight" in sd:  # absent among gradients where it is frozen
        params["patch_embed"] = patch_embed(sd, "patch_embed.proj")
    if equiv_layer is None:
        params["cls_pos_embed"] = sd["pos_embed"][:, :1]
        params["pos_embed"] = sd["pos_embed"][0, 1:]
    else:
        params["pos_embed"] = sd["pos_embed"][0]
        params[f"norm_grid_{equiv_layer}"] = norm(sd, "norm_equiv")
    return params


def stack(trees: list):
    """Stacks equal trees of arrays along a new first axis."""
    if isinstance(trees[0], dict):
        return {k: stack([tree[k] for tree in trees]) for k in trees[0]}
    return np.stack(trees)


def batch_norm_mlp(sd: dict) -> tuple[dict, dict]:
    """Sequential(linear, BN, ReLU, ..., linear, BN) as (params, batch_stats)."""
    params, stats = {}, {}
    indices = sorted({int(key.split(".")[0]) for key in sd})
    linears = [i for i in indices if sd.get(f"{i}.weight", np.zeros(1)).ndim == 2]
    for layer, i in enumerate(linears, start=1):
        params[f"fc{layer}"] = dense(sd, str(i))
        bn = i + 1
        if f"{bn}.weight" in sd:
            params[f"bn{layer}"] = norm(sd, str(bn))
        if f"{bn}.running_mean" in sd:
            stats[f"bn{layer}"] = {
                "mean": sd[f"{bn}.running_mean"],
                "var": sd[f"{bn}.running_var"],
            }
    return params, stats


def dino_head(sd: dict) -> tuple[dict, dict]:
    """DINO's head, `mlp.*` and `last_layer.*`, as (params, batch_stats)."""
    mlp, stats = batch_norm_mlp(
        {k.removeprefix("mlp."): v for k, v in sd.items() if k.startswith("mlp.")}
    )
    prototypes = {"direction": sd["last_layer.weight_v"].T}
    if "last_layer.weight_g" in sd:  # absent among gradients where it is fixed
        prototypes["gain"] = sd["last_layer.weight_g"].T
    return {"mlp": mlp, "prototypes": prototypes}, {"mlp": stats} if stats else {}


def subset(arrays: dict, prefix: str) -> dict:
    """Arrays whose name starts with `prefix`, the prefix cut off."""
    return {k[len(prefix) :]: v for k, v in arrays.items() if k.startswith(prefix)}


def token_projector(sd: dict) -> dict:
    """The equivariance term's projector, two 1 x 1 convolutions `projector_equiv.*`."""
    part = subset(sd, "projector_equiv.")
    first, second = sorted({name.split(".")[0] for name in part})
    return {"fc1": dense(part, first), "fc2": dense(part, second)}
