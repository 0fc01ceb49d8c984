"""Files without a name that tells where they come from."""

import re

from ser_jax.interop.answers import Answer, guess
from ser_jax.interop.finding import Place
from ser_jax.interop.layouts.base import Layout, in_path


class DeiTLike(Layout):
    """`model`, perhaps `model_ema`, without a prefix: DeiT's, or what has its form."""

    name, about = "deit", "DeiT, or MoCo v3 converted to it,"
    roles = ("online", "ema")

    def role(self, place: Place) -> str | None:
        """By the dictionary's name."""
        if place.module_prefix or not in_path(place, "model", "model_ema"):
            return None
        return "ema" if in_path(place, "model_ema") else "online"


class Torchvision(Layout):
    """A flat file of a ResNet or of torchvision's ViT, and what has their keys."""

    name, about = "torchvision", "torchvision, or what has its keys,"

    def role(self, place: Place) -> str | None:
        """A flat file's, by its family."""
        fits = place.is_resnet or place.family == "torchvision_vit"
        return "online" if place.is_flat and fits else None


class TimmOrDINO(Layout):
    """A flat file of a ViT: the keys of timm and DINO are the same."""

    name, about = "timm_or_dino", "timm or DINO"
    normalization = None

    def role(self, place: Place) -> str | None:
        """A flat file's, of a ViT."""
        flat = place.family == "vit" and place.is_flat
        return "online" if flat else None


class Other(Layout):
    """An encoder under names that no library has; a word there says which of two."""

    name, about = "other", "a library that is not known"
    roles = ("online", "teacher", "student", "momentum", "ema", "target", "key")
    normalization = None

    def epsilon(self, place: Place) -> Answer | None:
        """What most ViTs have."""
        return guess(1e-6, "what most ViTs have")

    def role(self, place: Place) -> str | None:
        """By the first such word on the way to it."""
        words = re.split(r"[./_]", f"{'/'.join(place.path)}/{place.prefix}")
        return next((word for word in words if word in self.roles), "online")
