"""Hugging Face transformers: ViT and Dinov2."""

from collections.abc import Mapping
from typing import Any

from ser_jax.interop.answers import Answer
from ser_jax.interop.families.found import FoundResNet, FoundViT
from ser_jax.interop.files.refused import UnreadableError
from ser_jax.interop.finding import Place
from ser_jax.interop.layouts.base import Layout, agree, mlp_ratio, three

_EPSILON, _EPSILON_DINOV2 = 1e-12, 1e-6  # where config.json does not say


class HuggingFace(Layout):
    """A folder with config.json; without it, heads and epsilon must be given."""

    name, about = "hf", "Hugging Face"
    resample = "hf"

    def role(self, place: Place) -> str | None:
        """By its keys."""
        return "online" if place.family == "hf" else None

    def num_heads(self, place: Place, found: FoundViT) -> Answer | None:
        """What config.json says, which must fit the arrays."""
        config = place.config
        if config is None:
            return None
        self._check(config, found)
        heads = config.get("num_attention_heads")
        return Answer(heads, "config.json") if type(heads) is int else None

    def epsilon(self, place: Place) -> Answer | None:
        """What config.json says, else the library's default."""
        config = place.config
        if config is None:
            return None
        dinov2 = config.get("model_type") == "dinov2"
        eps = config.get("layer_norm_eps", _EPSILON_DINOV2 if dinov2 else _EPSILON)
        if not isinstance(eps, int | float) or not 0 < eps < 1:
            raise UnreadableError(
                f"config.json says layer_norm_eps {eps!r:.60}, where a number between "
                "0 and 1 was expected"
            )
        return Answer(float(eps), "config.json")

    def normalize(self, place: Place, found: FoundViT | FoundResNet) -> Answer | None:
        """What preprocessor_config.json says."""
        about = place.preprocessor or {}
        if about.get("do_normalize") is False:
            return Answer(((0.0,) * 3, (1.0,) * 3), "preprocessor_config.json")
        if "image_mean" not in about or "image_std" not in about:
            return None
        mean, std = (
            three(f"preprocessor_config.json's {x}", about[x])
            for x in ("image_mean", "image_std")
        )
        return Answer((mean, std), "preprocessor_config.json")

    def _check(self, config: Mapping[str, Any], found: FoundViT) -> None:
        """Refuses a config of another function, or of other arrays."""
        if (act := config.get("hidden_act", "gelu")) != "gelu":
            raise UnreadableError(
                f"config.json says hidden_act {act!r:.60}: the package has 'gelu' alone"
            )
        if config.get("use_swiglu_ffn"):
            raise UnreadableError(
                "config.json says use_swiglu_ffn: the package has no SwiGLU MLP"
            )
        shapes: dict[str, float] = {
            "hidden_size": found.width,
            "num_hidden_layers": found.depth,
            "patch_size": found.patch_size,
            "image_size": found.side * found.patch_size,
            "num_channels": 3,
        }
        if config.get("model_type") == "dinov2":
            shapes["mlp_ratio"] = mlp_ratio(config.get("mlp_ratio"), found)
        else:
            shapes["intermediate_size"] = found.hidden
        agree("config.json", config, shapes)
