"""SER's release: on DINO, on MoCo v3, on Barlow Twins, and its baseline."""

from ser_jax.interop.finding import Place
from ser_jax.interop.layouts.base import Layout, in_path


class SEROnDINO(Layout):
    """As DINO's training, with `norm_equiv` in the backbones."""

    name, about = "ser_dino", "SER on DINO"
    roles = ("teacher", "student")
    resample = "dino"

    def role(self, place: Place) -> str | None:
        """By the dictionary's name and `norm_equiv`."""
        if not place.prefix or not place.has_norm_equiv:
            return None
        return in_path(place, *self.roles)


class SEROnMoCo(Layout):
    """`student` and `teacher` without a prefix; its baseline lacks `norm_equiv`."""

    name, about = "ser_moco", "SER on MoCo v3, or its baseline"
    roles = ("student", "teacher")
    resample = "dino"

    def role(self, place: Place) -> str | None:
        """By the dictionary's name."""
        return None if place.prefix else in_path(place, *self.roles)


class SEROnBarlow(Layout):
    """`model` without a prefix, with `norm_equiv`."""

    name, about = "ser_barlow", "SER on Barlow Twins"
    resample = "dino"

    def role(self, place: Place) -> str | None:
        """By the dictionary's name and `norm_equiv`."""
        alone = in_path(place, "model") and not place.prefix
        return "online" if alone and place.has_norm_equiv else None


class SERFlat(Layout):
    """An encoder of SER's, saved alone: a flat file with `norm_equiv`."""

    name, about = "ser", "SER"
    resample = "dino"

    def role(self, place: Place) -> str | None:
        """A flat file's, by `norm_equiv`."""
        return "online" if place.is_flat and place.has_norm_equiv else None
