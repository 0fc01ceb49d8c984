"""A folder that Hugging Face's `ViTModel.from_pretrained` reads."""

from typing import Any

import numpy as np
from etils import epath

from ser_jax.data.crops import eval_resize_px
from ser_jax.interop.export import torch_keys
from ser_jax.interop.export.outgoing import Outgoing, Target
from ser_jax.interop.files.safetensors import write_safetensors
from ser_jax.models.outputs import FINAL_NORM, PATCH_EMBED
from ser_jax.models.vit import ViT
from ser_jax.storage.files import write_json

_BICUBIC = 3  # Pillow's number
_LAYERS = {
    "norm1": "layernorm_before",
    "attn.proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
_QKV = ("query", "key", "value")


def _refusal(encoder: Outgoing) -> str:
    if not isinstance(encoder.module, ViT):
        return "hf is a folder of ViTModel, and this is a ResNet; export timm or onnx."
    return torch_keys.late_class_token(encoder)


def _write(encoder: Outgoing, folder: epath.Path) -> None:
    write_safetensors(folder / "model.safetensors", _arrays(encoder), {"format": "pt"})
    write_json(folder / "config.json", _config(encoder.module))
    write_json(folder / "preprocessor_config.json", _preprocessor(encoder))


def _arrays(encoder: Outgoing) -> dict[str, np.ndarray]:
    params = encoder.params
    patches = "embeddings.patch_embeddings.projection"
    arrays = {
        "embeddings.cls_token": params["cls_token"],
        "embeddings.position_embeddings": torch_keys.position_table(encoder),
        f"{patches}.weight": torch_keys.patch_kernel(encoder),
        f"{patches}.bias": params[PATCH_EMBED]["bias"],
        "layernorm.weight": params[FINAL_NORM]["scale"],
        "layernorm.bias": params[FINAL_NORM]["bias"],
    }
    for i, layer, leaf, array in torch_keys.vit_blocks(encoder):
        prefix = f"encoder.layer.{i}"
        if layer in _LAYERS:
            arrays[f"{prefix}.{_LAYERS[layer]}.{leaf}"] = array
        else:  # attn.qkv, packed
            for name, part in zip(_QKV, np.split(array, 3), strict=True):
                arrays[f"{prefix}.attention.attention.{name}.{leaf}"] = part
    return arrays


def _config(module: Any) -> dict[str, Any]:
    return {
        "architectures": ["ViTModel"],
        "model_type": "vit",
        "hidden_size": module.width,
        "num_hidden_layers": module.depth,
        "num_attention_heads": module.num_heads,
        "intermediate_size": int(module.mlp_ratio * module.width),
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.02,
        "layer_norm_eps": module.norm_eps,
        "image_size": module.image_size,
        "patch_size": module.patch_size,
        "num_channels": 3,
        "qkv_bias": True,
        "encoder_stride": module.patch_size,
        "dtype": "float32",
    }


def _preprocessor(encoder: Outgoing) -> dict[str, Any]:
    side = encoder.module.image_size
    return {
        # ViTImageProcessor cannot crop.
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": eval_resize_px(side)},
        "resample": _BICUBIC,
        "do_center_crop": True,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(encoder.mean),
        "image_std": list(encoder.std),
    }


def _notes(encoder: Outgoing) -> list[str]:
    notes = torch_keys.left_out(encoder)
    assert isinstance(encoder.module, ViT)
    if encoder.module.resample != "hf":
        notes.append(
            f"For images of {encoder.module.image_size} px: transformers resamples "
            "positions to other sizes by a filter that is not this encoder's "
            f"({encoder.module.resample})."
        )
    return [*notes, "There is no pooler: without the option it is made up at random."]


def _load(encoder: Outgoing) -> str:
    side = encoder.module.image_size
    return f"""import torch, transformers
model = transformers.ViTModel.from_pretrained(".", add_pooling_layer=False).eval()
images = torch.zeros(2, 3, {side}, {side})  # normalised
tokens = model(images).last_hidden_state
features = tokens[:, 0]  # cls"""


TARGET = Target("hf", "transformers", _refusal, _write, _notes, _load)
