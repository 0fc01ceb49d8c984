"""solo-learn: Lightning checkpoints."""

from ser_jax.interop.answers import Answer
from ser_jax.interop.families.found import FoundViT
from ser_jax.interop.finding import Place
from ser_jax.interop.layouts.base import Layout

_PREFIXES = {
    "backbone.": "online",
    "encoder.": "online",
    "momentum_backbone.": "momentum",
    "momentum_encoder.": "momentum",
}
_BOTH_WIDTH = 384  # of its vit_small: 6 heads, 12 with its MoCo v3


class SoloLearn(Layout):
    """`state_dict` with `backbone.*`, perhaps `momentum_backbone.*`.

    Its first versions say `encoder` for `backbone`.

    Its 3 x 3 stem has padding 2, and maps are larger than the image.
    """

    name, about = "solo", "solo-learn"
    roles = ("online", "momentum")
    resample = "timm"
    small_padding = 2
    normalization = None

    def role(self, place: Place) -> str | None:
        """By its prefix and Lightning's version."""
        if "pytorch-lightning_version" not in place.content:
            return None
        return _PREFIXES.get(place.prefix)

    def num_heads(self, place: Place, found: FoundViT) -> Answer | None:
        """As others have, but for the width of which it has both."""
        return None if found.width == _BOTH_WIDTH else super().num_heads(place, found)
