"""What "auto" means on the devices that a step is compiled for."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from ser_jax.train.accounting import student_tokens
from ser_jax.train.chips import chip
from ser_jax.train.experiment import Experiment

# What the backward pass keeps of a token and a block, in widths of the compute dtype,
# the least recomputation first. Read from compiled programs, see docs/performance.md;
# "none" in a loop keeps three times as much, since nothing is fused across its turns. A
# TPU is faster with "products": what "none" keeps of the GELU passes its memory twice.
_KEPT_WIDTHS = {"none": 14, "products": 9, "blocks": 5, "full": 1}
_LOOPED_NONE = 45
_USABLE = 0.9  # of a device's memory: the rest is the compiler's
_MOST_FUSED_TOKENS = 512  # whose logits fit a TPU core's own memory


def for_devices(experiment: Experiment, mesh: Mesh) -> Experiment:
    """An experiment whose encoder's "auto" settings are chosen.

    Args:
        experiment: What is trained.
        mesh: Devices that it is compiled for; they need not be here.

    Returns:
        The same experiment where nothing is "auto". Weights and losses do not depend on
        the choice, but for rounding.
    """
    encoder = experiment.learner.encoder
    device = mesh.devices.flat[0]
    chosen: dict[str, Any] = {}
    if getattr(encoder, "attention", "") == "auto":
        chosen["attention"] = _attention(device.platform, encoder)
    if getattr(encoder, "scan", "") == "auto":
        chosen["scan"] = device.platform == "gpu"
    experiment = experiment.with_encoder(**chosen)
    if getattr(encoder, "remat", "") == "auto":
        remat = _remat(experiment, mesh.size, device.platform, device_memory(device))
        experiment = experiment.with_encoder(remat=remat)
    return experiment


def _attention(platform: str, encoder: Any) -> str:
    """The kernel on TPUs, by their compiler's estimate. cuDNN's has not been tried."""
    tokens = (encoder.image_size // encoder.patch_size) ** 2 + 1
    is_short = tokens <= _MOST_FUSED_TOKENS
    return "fused" if platform == "tpu" and is_short else "xla"


def device_memory(device: Any) -> float:
    """Bytes that programs may use on a device.

    Args:
        device: A `jax.Device`, here or not.

    Returns:
        As it says itself, or by its data sheet; infinite if nobody does.
    """
    try:
        stats = device.memory_stats() or {}
    except (jax.errors.JaxRuntimeError, NotImplementedError):  # it is not here
        stats = {}
    sheet = chip(device.device_kind)
    known = math.inf if sheet is None or sheet.memory is None else sheet.memory
    return stats.get("bytes_limit", known)


def _remat(
    experiment: Experiment, num_devices: int, platform: str, memory: float
) -> str:
    """The policy that computes least again of those that fit, by an estimate."""
    encoder: Any = experiment.learner.encoder
    plain = experiment.with_encoder(attention="xla")  # shapes alone are asked for
    state = jax.eval_shape(plain.init_state, plain.init_rng)
    fixed = 1.5 * _num_bytes(state)
    parts = experiment.accumulate_steps
    # Views, as float32 and between their transforms, beside the crops they are made of.
    batch = _num_bytes(experiment.abstract_batch()) / num_devices
    fixed += (20 if parts == 1 else 3 + 20 / parts) * batch
    token = encoder.width * jnp.dtype(encoder.dtype).itemsize * encoder.depth
    tokens = student_tokens(experiment) * experiment.batch_size / num_devices / parts
    for policy, widths in _KEPT_WIDTHS.items():
        if policy == "none" and platform == "tpu":
            continue
        if policy == "none" and encoder.scan:
            widths = _LOOPED_NONE
        if fixed + widths * token * tokens <= _USABLE * memory:
            return policy
    return "full"


def _num_bytes(tree: Any) -> int:
    return sum(
        math.prod(leaf.shape) * jnp.dtype(leaf.dtype).itemsize
        for leaf in jax.tree.leaves(tree)
    )
