"""VISSL: SimCLR, BYOL, Barlow Twins and others, converted by classy vision."""

from ser_jax.interop.finding import Place
from ser_jax.interop.layouts.base import Layout


class VISSL(Layout):
    """`classy_state_dict/base_model/model/trunk/_feature_blocks.*`."""

    name, about = "vissl", "VISSL"

    def role(self, place: Place) -> str | None:
        """By its prefix."""
        return "online" if place.prefix == "_feature_blocks." else None
