"""MoCo: v3, and v1 and v2, whose encoders have other names."""

from ser_jax.interop.answers import Answer, guess
from ser_jax.interop.families.found import FoundViT
from ser_jax.interop.finding import Place
from ser_jax.interop.layouts.base import Layout

_V3_HEADS = {384: 12, 768: 12}


class MoCoV3(Layout):
    """`state_dict` with `module.base_encoder.*` and `module.momentum_encoder.*`."""

    name, about = "moco_v3", "MoCo v3"
    roles = ("base", "momentum")

    def role(self, place: Place) -> str | None:
        """By its prefix."""
        prefixes = {"base_encoder.": "base", "momentum_encoder.": "momentum"}
        if "pytorch-lightning_version" in place.content:  # solo-learn's, when it began
            return None
        return prefixes.get(place.module_prefix)

    def num_heads(self, place: Place, found: FoundViT) -> Answer | None:
        """Twice as many as others have at width 384."""
        if found.width not in _V3_HEADS:
            return None
        heads = _V3_HEADS[found.width]
        return guess(heads, f"MoCo v3's at width {found.width}")


class MoCo(Layout):
    """`state_dict` with `module.encoder_q.*` and `module.encoder_k.*`."""

    name, about = "moco", "MoCo v1 and v2"
    roles = ("base", "momentum")

    def role(self, place: Place) -> str | None:
        """By its prefix."""
        prefixes = {"encoder_q.": "base", "encoder_k.": "momentum"}
        return prefixes.get(place.module_prefix)
