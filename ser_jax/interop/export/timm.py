"""A folder that `timm.create_model("local-dir:FOLDER")` reads."""

from typing import Any

import numpy as np
from etils import epath

from ser_jax.data.crops import eval_resize_px
from ser_jax.interop.export import torch_keys
from ser_jax.interop.export.outgoing import Outgoing, Target
from ser_jax.interop.files.safetensors import write_safetensors
from ser_jax.models.outputs import FINAL_NORM, PATCH_EMBED
from ser_jax.models.resnet import ResNet
from ser_jax.models.variants import RESNETS, VARIANTS
from ser_jax.models.vit import ViT
from ser_jax.storage.files import write_json

_NORM_EPS, _FILTERS, _STAGES, _PADDING = 1e-6, 64, 4, 3  # timm's
_NAMES = {"Ti": "tiny", "S": "small", "B": "base", "L": "large"}


def _refusal(encoder: Outgoing) -> str:
    module = encoder.module
    if isinstance(module, ViT):
        if module.norm_eps != _NORM_EPS:
            return (
                f"LayerNorm's epsilon is {module.norm_eps:g}, and timm's {_NORM_EPS:g} "
                "cannot be changed by a file; export hf, onnx or jax."
            )
        return torch_keys.late_class_token(encoder)
    advice = "export onnx, jax or safetensors."
    if module.small_images:
        return (
            "timm's ResNet has no stem for small images (3 x 3, no stride, no pool); "
            f"{advice}"
        )
    if module.stem_padding not in (None, _PADDING):
        return (
            f"timm's stem is padded by {_PADDING} px, not {module.stem_padding}; "
            f"{advice}"
        )
    if module.num_filters != _FILTERS:
        return (
            f"timm's ResNet begins with {_FILTERS} filters, not {module.num_filters}; "
            f"{advice}"
        )
    if module.depth != _STAGES:
        return f"timm's ResNet has {_STAGES} stages, not {module.depth}; {advice}"
    return ""


def _write(encoder: Outgoing, folder: epath.Path) -> None:
    is_vit = isinstance(encoder.module, ViT)
    arrays = _vit(encoder) if is_vit else torch_keys.resnet(encoder)
    write_safetensors(folder / "model.safetensors", arrays, {"format": "pt"})
    write_json(folder / "config.json", _config(encoder))


def _vit(encoder: Outgoing) -> dict[str, np.ndarray]:
    params = encoder.params
    arrays = {
        "cls_token": params["cls_token"],
        "pos_embed": torch_keys.position_table(encoder),
        "patch_embed.proj.weight": torch_keys.patch_kernel(encoder),
        "patch_embed.proj.bias": params[PATCH_EMBED]["bias"],
        "norm.weight": params[FINAL_NORM]["scale"],
        "norm.bias": params[FINAL_NORM]["bias"],
    }
    for i, layer, leaf, array in torch_keys.vit_blocks(encoder):
        arrays[f"blocks.{i}.{layer}.{leaf}"] = array
    return arrays


def _config(encoder: Outgoing) -> dict[str, Any]:
    module = encoder.module
    side = module.image_size
    parts = _vit_config(module) if isinstance(module, ViT) else _resnet_config(module)
    return {
        "architecture": parts["architecture"],
        "num_classes": 0,
        "num_features": encoder.output_shapes["cls"][0],
        "global_pool": parts["pool"],
        "model_args": parts["model_args"],
        "pretrained_cfg": {
            "input_size": [3, side, side],
            "fixed_input_size": isinstance(module, ViT),
            "interpolation": "bicubic",
            "crop_pct": side / eval_resize_px(side),
            "mean": list(encoder.mean),
            "std": list(encoder.std),
            "num_classes": 0,
            "first_conv": parts["first_conv"],
            "classifier": parts["classifier"],
        },
    }


def _vit_config(module: ViT) -> dict[str, Any]:
    by_width = {width: _NAMES[name] for name, (width, *_) in VARIANTS.items()}
    return {
        # All that the name stands for is overridden.
        "architecture": f"vit_{by_width.get(module.width, 'base')}_patch16_224",
        "pool": "token",
        "model_args": {
            "img_size": module.image_size,
            "patch_size": module.patch_size,
            "embed_dim": module.width,
            "depth": module.depth,
            "num_heads": module.num_heads,
            "mlp_ratio": module.mlp_ratio,
        },
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    }


def _resnet_config(module: ResNet) -> dict[str, Any]:
    sizes = tuple(module.stage_sizes)
    known = {shape: name for name, shape in RESNETS.items()}
    like = "resnet18" if module.block == "basic" else "resnet50"
    return {
        "architecture": known.get((sizes, module.block), like),
        "pool": "avg",
        "model_args": {"layers": list(sizes)},
        "first_conv": "conv1",
        "classifier": "fc",
    }


def _notes(encoder: Outgoing) -> list[str]:
    notes = torch_keys.left_out(encoder)
    if isinstance(encoder.module, ViT) and encoder.module.resample != "timm":
        side = encoder.module.image_size
        notes.append(
            f"For images of {side} px: timm resamples positions to other sizes by a "
            f"filter that is not this encoder's ({encoder.module.resample})."
        )
    return notes


def _load(encoder: Outgoing) -> str:
    side = encoder.module.image_size
    return f"""import timm, torch
model = timm.create_model("local-dir:.", pretrained=True).eval()
images = torch.zeros(2, 3, {side}, {side})  # normalised
features = model(images)  # cls
tokens = model.forward_features(images)"""


TARGET = Target("timm", "timm", _refusal, _write, _notes, _load)
