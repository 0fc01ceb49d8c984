"""DINOv2: published backbones, and teachers as its training saves them."""

import re

from ser_jax.interop.finding import Place
from ser_jax.interop.layouts.base import Layout, in_path


class DINOv2Training(Layout):
    """`teacher` with `backbone.*`, its blocks perhaps in chunks, and `dino_head.*`."""

    name, about = "dinov2_training", "DINOv2's training"
    roles = ("teacher", "student")
    resample = "dino"

    def role(self, place: Place) -> str | None:
        """By the dictionary's name, and chunks or a head."""
        if place.module_prefix != "backbone.":
            return None
        chunked = any(re.match(r"blocks\.\d+\.\d+\.", key) for key in place.keys)
        has_head = any("dino_head." in key for key in place.neighbours)
        return in_path(place, *self.roles) if chunked or has_head else None


class DINOv2(Layout):
    """A published backbone: a flat file with layer scale and `mask_token`."""

    name, about = "dinov2", "DINOv2"
    resample = "dino"

    def role(self, place: Place) -> str | None:
        """A flat file's, by two of its keys."""
        marks = {"blocks.0.ls1.gamma", "mask_token"} <= place.keys.keys()
        flat = place.family == "vit" and place.is_flat
        return "online" if flat and marks else None
