"""Our arrays under PyTorch's names and in its layout.

Linear kernels are transposed, convolutions `[h, w, in, out]` become `[out, in, h, w]`;
the blocks of a ViT are unstacked.
"""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from ser_jax.interop.export.outgoing import Outgoing
from ser_jax.models.outputs import BLOCKS, PATCH_EMBED
from ser_jax.models.pos_embed import sincos_table
from ser_jax.models.resnet import ResNet
from ser_jax.models.vit import ViT
from ser_jax.storage.tables import flatten

_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}
_STATISTICS = {"mean": "running_mean", "var": "running_var"}


def late_class_token(encoder: Outgoing) -> str:
    """Why a format of plain ViTs does not hold the encoder, if its class token is late.

    Args:
        encoder: Any.

    Returns:
        One line; "" if it joins at the input, or there is none.
    """
    if not encoder.module.cls_insert:
        return ""
    return (
        f"the class token joins after block {encoder.module.cls_insert}, which this "
        "format cannot say; export onnx, jax or safetensors."
    )


def left_out(encoder: Outgoing) -> list[str]:
    """Norms that a format without read layers leaves out.

    Args:
        encoder: Any.

    Returns:
        A line that names them; [] if there are none.
    """
    names = sorted(name for name in encoder.params if name.startswith("norm_"))
    if not names:
        return []
    return [f"Left out: {', '.join(names)}, of layers that training read."]


def position_table(encoder: Outgoing) -> np.ndarray:
    """Positions of a ViT whose class token joins at the input, `[1, n + 1, d]`.

    Args:
        encoder: A ViT.

    Returns:
        The table, float32; the class token's row comes first, 0 with sin-cos.
    """
    module, params = encoder.module, encoder.params
    assert isinstance(module, ViT)
    if module.pos_embed == "learned":
        return np.concatenate([params["cls_pos_embed"], params["pos_embed"][None]], 1)
    table = sincos_table(module.image_size // module.patch_size, module.width)
    return np.pad(table, [(1, 0), (0, 0)])[None]


def patch_kernel(encoder: Outgoing) -> np.ndarray:
    """The patch embedding of a ViT as a convolution's kernel.

    Args:
        encoder: A ViT.

    Returns:
        `[d, 3, p, p]`, float32.
    """
    kernel, side = encoder.params[PATCH_EMBED]["kernel"], encoder.module.patch_size
    return kernel.reshape(side, side, 3, -1).transpose(3, 2, 0, 1)


def vit_blocks(encoder: Outgoing) -> Iterator[tuple[int, str, str, np.ndarray]]:
    """The arrays of a ViT's blocks.

    Args:
        encoder: A ViT.

    Yields:
        Block from 0, layer ("attn.qkv"), "weight" or "bias", array.
    """
    for path, stacked in flatten(encoder.params[BLOCKS], ".").items():
        layer, _, leaf = path.rpartition(".")
        for i, array in enumerate(stacked):
            yield i, layer, _LEAVES[leaf], array.T


def resnet(encoder: Outgoing) -> dict[str, np.ndarray]:
    """The arrays of a ResNet under torchvision's names.

    Args:
        encoder: A ResNet.

    Returns:
        Name to array, float32; int64 the number of batches seen, which is not known: 0.
    """
    assert isinstance(encoder.module, ResNet)
    arrays = {}
    for path, array in flatten(encoder.params, ".").items():
        if not path.startswith("norm_"):
            *layer, kind, leaf = path.split(".")
            if kind == "conv":
                array = array.transpose(3, 2, 0, 1)
            arrays[f"{_torchvision(layer, kind)}.{_LEAVES[leaf]}"] = array
    for path, array in flatten(encoder.variables["batch_stats"], ".").items():
        *layer, kind, leaf = path.split(".")
        name = _torchvision(layer, kind)
        arrays[f"{name}.{_STATISTICS[leaf]}"] = array
        arrays[f"{name}.num_batches_tracked"] = np.array(0, np.int64)
    return arrays


def _torchvision(layer: Any, kind: str) -> str:
    """("stage2_block1", "layer1"), "conv" -> "layer2.0.conv1"."""
    block, name = layer
    if block == "stem":
        return f"{kind}1"
    stage, index = re.findall(r"\d+", block)
    prefix = f"layer{stage}.{int(index) - 1}"
    if name == "shortcut":
        return f"{prefix}.downsample.{('conv', 'bn').index(kind)}"
    return f"{prefix}.{kind}{name.removeprefix('layer')}"
