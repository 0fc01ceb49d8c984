"""lightly: its examples and benchmarks, Lightning checkpoints."""

import re

from ser_jax.interop.answers import Answer
from ser_jax.interop.families.found import FoundResNet, FoundViT
from ser_jax.interop.finding import Place
from ser_jax.interop.layouts.base import Layout

_OTHERS = {
    "student_backbone.": "student",
    "query_backbone.": "student",
    "teacher_backbone.": "teacher",
    "key_backbone.": "momentum",
    "backbone_momentum.": "momentum",
}


class Lightly(Layout):
    """`backbone.*`: a Sequential, or beside heads or backbones of lightly's names.

    It is the teacher beside `student_backbone.*` or MoCo v2's `query_backbone.*`: it
    follows these, and lightly evaluates it. Else it is the online network.
    """

    name, about = "lightly", "lightly"
    roles = ("online", "teacher", "student", "momentum")

    def role(self, place: Place) -> str | None:
        """By prefix and neighbours."""
        beside = "|".join(map(re.escape, _OTHERS))
        beside = rf"{beside}|projection_head\.|online_classifier\."
        prefix = place.prefix.removesuffix("vit.")  # its masked ViT's own
        if prefix in _OTHERS:
            return _OTHERS[prefix]
        if prefix != "backbone." or not (
            place.family == "sequential"
            or any(".shortcut.0." in key for key in place.keys)
            or any(re.match(beside, key) for key in place.neighbours)
        ):
            return None
        student = ("student_", "query_")
        follows = any(key.startswith(student) for key in place.neighbours)
        return "teacher" if follows else "online"

    def normalize(self, place: Place, found: FoundViT | FoundResNet) -> Answer | None:
        """ImageNet's, but for CIFAR's stem: there it differs."""
        small = isinstance(found, FoundResNet) and found.small_images
        return None if small else super().normalize(place, found)
