"""Named sizes of the ViT."""

from collections.abc import Mapping
from typing import Any

from ser_jax.models.vit import ViT

# width, depth, heads
VARIANTS: Mapping[str, tuple[int, int, int]] = {
    "Ti": (192, 12, 3),
    "S": (384, 12, 6),  # MoCo v3 uses 12 heads; shapes do not tell
    "B": (768, 12, 12),
    "L": (1024, 24, 16),
}


def make_vit(
    variant: str,
    *,
    image_size: int,
    width: int = 0,
    depth: int = 0,
    num_heads: int = 0,
    **attributes: Any,
) -> ViT:
    """ViT of a named size.

    Args:
        variant: "S/16" and the like: Ti, S, B or L, and the patch size in pixels.
        image_size: Pixels a side of the training image.
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
            f"like 'S/16'; got {variant!r}."
        )
    own_width, own_depth, own_heads = VARIANTS[size]
    return ViT(
        width=width or own_width,
        depth=depth or own_depth,
        num_heads=num_heads or own_heads,
        patch_size=int(patch),
        image_size=image_size,
        **attributes,
    )
