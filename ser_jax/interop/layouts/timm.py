"""timm: training checkpoints, folders with config.json, bare files."""

from collections.abc import Mapping
from typing import Any

from ser_jax.interop.answers import Answer
from ser_jax.interop.families.found import FoundResNet, FoundViT
from ser_jax.interop.files.refused import UnreadableError
from ser_jax.interop.finding import Place
from ser_jax.interop.layouts.base import Layout, agree, mlp_ratio, three

_CROP_FRAC = 224 / 256  # what evaluation crops at 224 px
# Settings of a model that do not change what it gives, with the values of which that is
# so; None: any.
_HARMLESS: Mapping[str, tuple[Any, ...] | None] = {
    "num_classes": None,
    "in_chans": (3,),
    "init_values": None,
    "qkv_bias": None,
    "class_token": (True,),
    "no_embed_class": None,
    "global_pool": ("token", "avg"),
    "fc_norm": (None, False),
    "dynamic_img_size": None,
    "drop_rate": None,
    "drop_path_rate": None,
    "weight_init": None,
    "zero_init_last": None,
}


class TimmTraining(Layout):
    """`state_dict` with `version`, or with `state_dict_ema`, without a prefix."""

    name, about = "timm_training", "timm's training"
    roles = ("ema", "online")
    resample = "timm"
    normalization = None

    def role(self, place: Place) -> str | None:
        """By the dictionary's name and its neighbours."""
        names = {"state_dict": "online", "state_dict_ema": "ema"}
        if place.prefix or place.content.keys().isdisjoint(
            ("version", "state_dict_ema")
        ):
            return None
        return names.get(place.path[-1] if place.path else "")


class Timm(Layout):
    """A flat file, if the user says that it is timm's."""

    name, about = "timm", "timm"
    resample = "timm"
    normalization = None

    def role(self, place: Place) -> str | None:
        """A flat file's."""
        timms = place.is_resnet or place.family == "vit"
        return "online" if place.is_flat and timms else None


class TimmFolder(Timm):
    """A folder of timm's: its config.json has `architecture`."""

    name, about = "timm_folder", "timm's folder"

    def role(self, place: Place) -> str | None:
        """By config.json."""
        told = place.config is not None and "architecture" in place.config
        return super().role(place) if told else None

    def num_heads(self, place: Place, found: FoundViT) -> Answer | None:
        """What config.json says, else what timm's models have."""
        side, p = found.side * found.patch_size, found.patch_size
        arguments = self._arguments(
            place,
            {
                "img_size": side,
                "patch_size": p,
                "embed_dim": found.width,
                "depth": found.depth,
                "mlp_ratio": mlp_ratio(self._said(place).get("mlp_ratio"), found),
            },
            ("num_heads",),
        )
        if (place.config or {}).get("global_pool", "token") != "token":
            raise UnreadableError(
                "config.json says that patch tokens are pooled, not the class token: "
                "another pooling, which the package does not have"
            )
        if "num_heads" in arguments:
            return Answer(arguments["num_heads"], "config.json")
        return super().num_heads(place, found)

    def normalize(self, place: Place, found: FoundViT | FoundResNet) -> Answer | None:
        """What config.json says."""
        about = self._pretrained(place)
        if "mean" not in about or "std" not in about:
            return None
        mean, std = (three(f"config.json's {x}", about[x]) for x in ("mean", "std"))
        return Answer((mean, std), "config.json")

    def image_size(self, place: Place, found: FoundResNet) -> Answer:
        """What config.json says."""
        self._arguments(place, {"layers": list(found.stage_sizes)}, ("block",))
        size = self._pretrained(place).get("input_size")
        if size is None:
            return super().image_size(place, found)
        return Answer(int(three("config.json's input_size", size)[-1]), "config.json")

    def notes(self, place: Place) -> dict[str, str]:
        """Another crop or filter than that of evaluation here."""
        about, notes = self._pretrained(place), {}
        crop = about.get("crop_pct", _CROP_FRAC)
        if isinstance(crop, int | float) and abs(crop - _CROP_FRAC) > 1e-3:
            notes["crop"] = f"evaluation's own, where timm's crop_pct is {crop:g}"
        if (kind := about.get("interpolation", "bicubic")) != "bicubic":
            notes["interpolation"] = f"bicubic, where timm's is {kind}"
        return notes

    def _pretrained(self, place: Place) -> Mapping[str, Any]:
        config = place.config or {}
        found = config.get("pretrained_cfg", {})
        return found if isinstance(found, Mapping) else {}

    def _said(self, place: Place) -> Mapping[str, Any]:
        found = (place.config or {}).get("model_args") or {}
        if not isinstance(found, Mapping):
            raise UnreadableError("config.json has model_args that are no object")
        return found

    def _arguments(
        self, place: Place, shapes: Mapping[str, Any], others: tuple[str, ...]
    ) -> Mapping[str, Any]:
        """Its model's arguments, checked: an unknown one may change what it gives."""
        found = self._said(place)
        for name, value in found.items():
            allowed = _HARMLESS.get(name, ())
            known = allowed is None or value in allowed
            if not known and name not in shapes and name not in others:
                raise UnreadableError(
                    f"config.json has model_args.{name} {value!r:.60}, which is not "
                    "known to the package and may change what the model gives"
                )
        agree("config.json", found, shapes)
        return found
