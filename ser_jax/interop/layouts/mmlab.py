"""OpenMMLab: mmselfsup, mmpretrain."""

from ser_jax.interop.answers import Answer
from ser_jax.interop.families.found import FoundResNet, FoundViT
from ser_jax.interop.files.tensors import Tensor
from ser_jax.interop.finding import Place
from ser_jax.interop.layouts.base import Layout, three

_BYTES = 255.0


class MMLab(Layout):
    """`state_dict` with `backbone.*`, and `meta` beside it."""

    name, about = "mmlab", "OpenMMLab"

    def role(self, place: Place) -> str | None:
        """By its prefix and `meta`."""
        fits = place.prefix == "backbone." and "meta" in place.content
        return "online" if fits else None

    def normalize(self, place: Place, found: FoundViT | FoundResNet) -> Answer | None:
        """What its preprocessor keeps, of pixels up to 255; else ImageNet's."""
        tensors = self._preprocessor(place)
        if len(tensors) < 2:
            return super().normalize(place, found)
        mean, std = (
            three(f"data_preprocessor.{name}", tensors[name], _BYTES)
            for name in ("mean", "std")
        )
        return Answer((mean, std), "data_preprocessor of the file")

    def _preprocessor(self, place: Place) -> dict[str, list[float]]:
        node = place.content
        for name in place.path:
            node = node[name]
        keys = {name: node.get(f"data_preprocessor.{name}") for name in ("mean", "std")}
        return {
            name: tensor.numpy().reshape(-1).tolist()
            for name, tensor in keys.items()
            if isinstance(tensor, Tensor)
        }
