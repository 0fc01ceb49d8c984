"""DINO: training checkpoints, parts of them, published backbones."""

from ser_jax.interop.finding import Place
from ser_jax.interop.layouts.base import Layout, in_path


class DINOFull(Layout):
    """`student` with `module.backbone.*`, `teacher` with `backbone.*` (or as well)."""

    name, about = "dino_full", "DINO's training"
    roles = ("teacher", "student")
    resample = "dino"

    def role(self, place: Place) -> str | None:
        """By the dictionary's name."""
        if place.module_prefix != "backbone.":
            return None
        return in_path(place, *self.roles)


class DINOPart(Layout):
    """One network of a training checkpoint, saved alone: `backbone.*`, `head.*`."""

    name, about = "dino_part", "a part of DINO's training"
    resample = "dino"

    def role(self, place: Place) -> str | None:
        """By prefix and neighbours."""
        alone = place.module_prefix == "backbone." and not place.path
        head = place.prefix.replace("backbone.", "head.")
        has_head = any(key.startswith(head) for key in place.neighbours)
        return "online" if alone and has_head else None


class DINO(Layout):
    """A published backbone: timm's keys, if the user says that it is DINO's."""

    name, about = "dino", "DINO"
    resample = "dino"

    def role(self, place: Place) -> str | None:
        """A flat file's, without any prefix."""
        flat = place.family == "vit" and place.is_flat
        return "online" if flat else None
