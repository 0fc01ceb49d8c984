"""Barlow Twins' training checkpoint; its published ResNet is a flat file."""

from ser_jax.interop.finding import Place
from ser_jax.interop.layouts.base import Layout, in_path


class BarlowTwins(Layout):
    """`model` with `module.backbone.*`."""

    name, about = "barlow_twins", "Barlow Twins' training"

    def role(self, place: Place) -> str | None:
        """By dictionary and prefix."""
        fits = in_path(place, "model") and place.prefix == "module.backbone."
        return "online" if fits else None
