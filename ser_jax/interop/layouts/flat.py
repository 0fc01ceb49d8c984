"""Files without a name that tells where they come from."""

from ser_jax.interop.finding import Place
from ser_jax.interop.layouts.base import Layout, in_path


class DeiTLike(Layout):
    """`model` without a prefix: DeiT's, or MoCo v3's converted to it."""

    name, about = "deit", "DeiT, or MoCo v3 converted to it,"

    def role(self, place: Place) -> str | None:
        """By the dictionary's name."""
        return "online" if in_path(place, "model") and not place.prefix else None


class Torchvision(Layout):
    """A flat file of a ResNet: torchvision's, and what has its keys."""

    name, about = "torchvision", "torchvision, or what has its keys,"

    def role(self, place: Place) -> str | None:
        """A flat file's, of a ResNet."""
        flat = place.is_resnet and not place.path and not place.prefix
        return "online" if flat else None


class TimmOrDINO(Layout):
    """A flat file of a ViT: the keys of timm and DINO are the same."""

    name, about = "timm_or_dino", "timm or DINO"
    normalization = None

    def role(self, place: Place) -> str | None:
        """A flat file's, of a ViT."""
        flat = place.family == "vit" and not place.path and not place.prefix
        return "online" if flat else None
