"""What libraries call a ViT's arrays."""

import dataclasses
from collections.abc import Mapping

from ser_jax.interop.finding import Place


@dataclasses.dataclass(frozen=True)
class Names:
    """What a library calls arrays, by timm's names; a name that is not there is timm's.

    Attributes:
        block: Pattern of what a block's keys begin with; its group is the number.
        outer: Names outside the blocks.
        parts: Names inside them: of an array, or of all of a layer's.
    """

    block: str
    outer: Mapping[str, str]
    parts: Mapping[str, str]


_TIMM = Names(r"blocks\.(?:\d+\.)?(\d+)\.", {}, {})  # of DINOv2's chunks, too
_TORCHVISION = Names(
    r"encoder\.layers\.encoder_layer_(\d+)\.",
    {
        "patch_embed.proj": "conv_proj",
        "cls_token": "class_token",
        "pos_embed": "encoder.pos_embedding",
        "norm": "encoder.ln",
    },
    {
        "norm1": "ln_1",
        "norm2": "ln_2",
        "attn.qkv.weight": "self_attention.in_proj_weight",
        "attn.qkv.bias": "self_attention.in_proj_bias",
        "attn.proj": "self_attention.out_proj",
        "mlp.fc1": "mlp.0",
        "mlp.fc2": "mlp.3",
    },
)
_MLP_BEFORE_0_12 = {"mlp.fc1": "mlp.linear_1", "mlp.fc2": "mlp.linear_2"}
_MMLAB = Names(
    r"layers\.(\d+)\.",
    {"patch_embed.proj": "patch_embed.projection", "norm": "ln1"},
    {
        "norm1": "ln1",
        "norm2": "ln2",
        "mlp.fc1": "ffn.layers.0.0",
        "mlp.fc2": "ffn.layers.1",
    },
)
_HF_OUTER = {
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "norm": "layernorm",
}
_HF_NORMS = {"norm1": "layernorm_before", "norm2": "layernorm_after"}
_HF_SCALES = {"ls1.gamma": "layer_scale1.lambda1", "ls2.gamma": "layer_scale2.lambda1"}
_HF_SAVED = {  # what save_pretrained writes
    "attn.q": "attention.attention.query",
    "attn.k": "attention.attention.key",
    "attn.v": "attention.attention.value",
    "attn.proj": "attention.output.dense",
}
_HF_SAVED_MLP = {"mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense"}
_HF_STATE = {  # a model's state_dict, from transformers 5 on
    "attn.q": "attention.q_proj",
    "attn.k": "attention.k_proj",
    "attn.v": "attention.v_proj",
    "attn.proj": "attention.o_proj",
}


def names_of(place: Place) -> Names:
    """What an encoder's library calls its arrays.

    Args:
        place: Where it is.

    Returns:
        The names, by timm's.
    """

    def some(part: str) -> bool:
        return any(part in key for key in place.keys)

    if place.family == "torchvision_vit":
        older = _MLP_BEFORE_0_12 if some(".mlp.linear_1.") else {}
        return dataclasses.replace(_TORCHVISION, parts={**_TORCHVISION.parts, **older})
    if place.family != "hf":
        return _MMLAB if place.family == "mmlab_vit" else _TIMM
    parts = _HF_STATE if some(".attention.q_proj.") else _HF_SAVED
    if some(".layernorm_before."):  # ViT's; Dinov2's are timm's
        parts = parts | _HF_NORMS
    if some(".intermediate.dense."):
        parts = parts | _HF_SAVED_MLP
    return Names(r"(?:encoder\.layer|layers)\.(\d+)\.", _HF_OUTER, parts | _HF_SCALES)
