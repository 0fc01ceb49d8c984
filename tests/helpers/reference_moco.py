"""The MoCo v3 part of the recorded losses, on given class tokens."""

import jax.numpy as jnp

from helpers import interop_torch
from ser_jax.methods.objectives.moco_v3 import MoCoV3


def mlp(sd: dict, prefix: str) -> dict:
    return interop_torch.batch_norm_mlp(interop_torch.subset(sd, prefix))[0]


def online_heads(sd: dict) -> dict:
    """Parameters (or their gradients) of projector and predictor."""
    return {
        "projector": mlp(sd, "base_encoder.head."),
        "predictor": mlp(sd, "predictor."),
    }


def moco(data) -> MoCoV3:
    """The objective, as wide as the recorded heads."""
    hidden_dim, output_dim = online_heads(data.group("sd/"))["predictor"]["fc2"][
        "kernel"
    ].shape
    return MoCoV3(
        temperature=data.settings["T"], hidden_dim=hidden_dim, output_dim=output_dim
    )


def moco_loss(data, params: dict, cls_q: list, cls_k: list):
    """loss_inv of two views: online class tokens against those of the target."""
    objective = moco(data)
    heads = objective.make_heads()
    target = {"projector": mlp(data.group("sd/"), "momentum_encoder.head.")}

    def embed(params, cls, method):
        return heads.apply(
            {"params": params}, cls, True, method=method, mutable=["batch_stats"]
        )[0]

    names = [spec.name for spec in objective.views]
    student = {
        n: embed(params, x, "student") for n, x in zip(names, cls_q, strict=True)
    }
    keys = {n: embed(target, x, "target") for n, x in zip(names, cls_k, strict=True)}
    return objective.loss(student, keys, {}, jnp.zeros((), jnp.int32))[0]
