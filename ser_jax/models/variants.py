"""Encoders of named sizes."""

from collections.abc import Mapping
from typing import Any

from ser_jax.models.outputs import Encoder
from ser_jax.models.resnet import ResNet
from ser_jax.models.vit import ViT

# width, depth, heads
VARIANTS: Mapping[str, tuple[int, int, int]] = {
    "Ti": (192, 12, 3),
    "S": (384, 12, 6),  # MoCo v3 uses 12 heads; shapes do not tell
    "B": (768, 12, 12),
    "L": (1024, 24, 16),
}

# stage sizes, block
RESNETS: dict[str, tuple[tuple[int, ...], str]] = {
    "resnet18": ((2, 2, 2, 2), "basic"),
    "resnet34": ((3, 4, 6, 3), "basic"),
    "resnet50": ((3, 4, 6, 3), "bottleneck"),
    "resnet101": ((3, 4, 23, 3), "bottleneck"),
    "resnet152": ((3, 8, 36, 3), "bottleneck"),
}

# Settings that mean nothing to a ResNet; nor do pos_embed, resample, norm_eps,
# init_scheme and scan.
VIT_ONLY = (
    *("freeze_patch_embed", "drop_path_rate", "depth", "num_heads"),
    *("attention", "remat"),
)


def make_encoder(
    variant: str, *, cls_insert: int, small_images: bool, **attributes: Any
) -> Encoder:
    """Encoder of a named size.

    Args:
        variant: A ViT's, see `make_vit`, or a name in `RESNETS`.
        cls_insert: Where a ViT's class token joins; a ResNet has none.
        small_images: Whether a ResNet has the stem of CIFAR.
        **attributes: As for `make_vit`. A ResNet takes image_size, width (filters of
            the first stage, 0: 64), grid_layers, cls_layers and dtype; the others are
            a ViT's.

    Returns:
        A `ViT` or a `ResNet`.

    Raises:
        ValueError: If the variant is not known, or a setting is refused.
    """
    if variant not in RESNETS:
        if small_images:
            raise ValueError(
                f"model.small_images is the stem of a ResNet; for {variant} choose the "
                "patch size, like 'Ti/4'."
            )
        return make_vit(variant, cls_insert=cls_insert, **attributes)
    stage_sizes, block = RESNETS[variant]
    if refused := [x for x in VIT_ONLY if attributes[x] not in (0, "auto")]:
        raise ValueError(
            f"{variant} is no ViT: set {', '.join(f'model.{n}' for n in refused)} to "
            "0, False or 'auto'."
        )
    return ResNet(
        stage_sizes,
        block,
        image_size=attributes["image_size"],
        num_filters=attributes["width"] or 64,
        small_images=small_images,
        grid_layers=attributes["grid_layers"],
        cls_layers=attributes["cls_layers"],
        dtype=attributes["dtype"],
    )


def make_vit(
    variant: str,
    *,
    image_size: int,
    cls_insert: int = 0,
    width: int = 0,
    depth: int = 0,
    num_heads: int = 0,
    **attributes: Any,
) -> ViT:
    """ViT of a named size.

    Args:
        variant: "S/16" and the like: Ti, S, B or L, and the patch size in pixels.
        image_size: Pixels a side of the training image.
        cls_insert: Blocks after which the class token joins; all of them means 0, as in
            SER's ablation of the last layer.
        width: Token width, if not the variant's own.
        depth: Number of blocks, if not the variant's own.
        num_heads: Attention heads, if not the variant's own.
        **attributes: Further attributes of `ViT`.

    Returns:
        A `ViT`.

    Raises:
        ValueError: If the variant is not known.
    """
    size, _, patch = variant.partition("/")
    if size not in VARIANTS or not patch.isdigit():
        raise ValueError(
            f"model variant must be one of {', '.join(VARIANTS)} and a patch size, "
            f"like 'S/16', or one of {', '.join(RESNETS)}; got {variant!r}."
        )
    own_width, own_depth, own_heads = VARIANTS[size]
    depth = depth or own_depth
    return ViT(
        width=width or own_width,
        depth=depth,
        num_heads=num_heads or own_heads,
        # After the last block it would see no patch: it then joins at the input.
        cls_insert=cls_insert % depth,
        patch_size=int(patch),
        image_size=image_size,
        **attributes,
    )
