"""Named changes to a config: which regularizer, at which layer, with which settings.

A base's config file ends with `with_preset(config, preset, ...)`; the part after the
colon of `--config=configs/moco_v3.py:equimod_decoupled` is the preset's name.
"""

import dataclasses
import difflib
import pathlib
import runpy
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from ser_jax.methods.regularizers import REGULARIZERS
from ser_jax.methods.settings import settings_of

EARLY, LAST = "early", "last"  # layers that depend on the encoder
_EVERY = "every"


@dataclasses.dataclass(frozen=True)
class Preset:
    """A named change.

    Attributes:
        what: One line for people.
        regularizer: Name in `REGULARIZERS`.
        layer: Where it reads: `EARLY`, `LAST` or a number; None where it has no layer.
        settings: Path in the config -> value.
    """

    what: str
    regularizer: str = "none"
    layer: str | int | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def _ser(what: str, layer: str | int = EARLY, **settings: Any) -> Preset:
    values = {f"regularizer.{name}": value for name, value in settings.items()}
    return Preset(what, "ser", layer, values)


_FOUR_LOCALS = {"objective.num_local": 4}
_NO_SCALE: dict[str, Any] = {"area_range": (1.0, 1.0), "aspect_range": (1.0, 1.0)}

PRESETS: Mapping[str, Preset] = {
    "none": Preset("the base alone"),
    "2plus4": Preset("two global and four local views", settings=_FOUR_LOCALS),
    # The paper's rows.
    "ser": _ser("SER after block 3: ser_release, for now"),
    "ser_paper": _ser(
        "SER as its paper says: b2 uncropped, an invariance loss of its own",
        crop="none",
        invariance="split",
        temperature=0.3,
    ),
    "ser_release": _ser(
        "SER as its release says: b2's views share a crop, one invariance loss",
        crop="shared",
        invariance="joint",
    ),
    "ser_2plus4": Preset("SER on 2 + 4 views", "ser", EARLY, _FOUR_LOCALS),
    "ser_2plus4_release": Preset(
        "the same with the release's colours, sum over pairs and colour of b2",
        "ser",
        EARLY,
        {
            **_FOUR_LOCALS,
            "augment.recipe": "ser_multicrop",
            "regularizer.colour": "local",
            "regularizer.pairs": "sum",
        },
    ),
    "equimod": Preset("EquiMod (3 views) on the embedding", "equimod", LAST),
    "equimod_decoupled": Preset("EquiMod at the early layer", "equimod", EARLY),
    "augself": Preset("AugSelf on the embedding", "augself", LAST),
    "augself_release": Preset(
        "AugSelf with its own augmentation, as SER's authors run it",
        "augself",
        LAST,
        {"augment.recipe": "augself", "augment.crop_scale": (0.08, 1.0)},
    ),
    "augself_decoupled": Preset("AugSelf at the early layer", "augself", EARLY),
    "augself_rotation": Preset(
        "AugSelf that predicts quarter turns alone",
        "augself",
        LAST,
        {
            "augment.rot90_prob": 0.375,  # one of four with .5: a quarter is no turn
            "regularizer.crop_weight": 0.0,
            "regularizer.color_weight": 0.0,
            "regularizer.rotation_weight": 1.0,
        },
    ),
    "essl": Preset("E-SSL (2 + 4 views) on the embedding", "essl", LAST),
    "essl_decoupled": Preset("E-SSL at the early layer", "essl", EARLY),
    "stl": Preset("STL on the embedding", "stl", LAST),
    "stl_release": Preset(
        "STL with its own augmentation, as SER's authors run it",
        "stl",
        LAST,
        {"augment.recipe": "stl", "augment.crop_scale": (0.2, 1.0)},
    ),
    "stl_decoupled": Preset("STL at the early layer", "stl", EARLY),
    # SER's ablations: the paper's and its reviewers'.
    "ser_lambda0": _ser("SER's views and class token, no term", weight=0.0),
    "ser_layer9": _ser("SER after block 9", 9),
    "ser_last_layer": _ser("SER on the last layer", LAST),
    "ser_all_layers": _ser("SER on every layer", layers=_EVERY),
    "ser_opposite": _ser("negatives of the opposite view alone", negatives="opposite"),
    "ser_forward": _ser("one direction, as released for Barlow", directions="forward"),
    "ser_bilinear": _ser("rho_g by bilinear interpolation", kernel="bilinear"),
    "ser_nearest": _ser("rho_g by the nearest cell", kernel="nearest"),
    "ser_rotations": _ser("quarter turns alone", flips=False, **_NO_SCALE),
    "ser_flips": _ser("flips alone", rotations=False, **_NO_SCALE),
    "ser_d4": _ser("turns and flips, no scale", **_NO_SCALE),
    "ser_scale": _ser("scale alone", rotations=False, flips=False),
    "ser_share10": _ser("10 % of the batch in b2", share=0.1),
    "ser_ascend": Preset(
        "share of b2 rising from 0", "ser", EARLY, {"equiv_share.start": 0.0}
    ),
    "ser_descend": Preset(
        "share of b2 falling to 0", "ser", EARLY, {"equiv_share.end": 0.0}
    ),
    "ser_weight_ascend": Preset(
        "lambda rising from 0", "ser", EARLY, {"equiv_weight.start": 0.0}
    ),
    "ser_release_parity": _ser(
        "what the released code computes: a term without gradient",
        equiv_grad="none",
        negatives="opposite",
        sampling="release",
    ),
}

# How SER's authors fitted the compared methods to ViT-S.
VIT_PORTS: Mapping[str, Mapping[str, Any]] = {
    "equimod": {
        "negatives": "cross",
        "hidden_dim": 384,
        "standardize": "official_imagenet_byol",
        "joint_batch_norm": False,
    },
    "essl": {"bottleneck_dim": 256},
}


def with_preset(
    config: ConfigDict,
    preset: str,
    *,
    early: int,
    last: int,
    early_pool: str = "cls",
    own: Mapping[str, Mapping[str, Any]] | None = None,
    more: Mapping[str, Preset] | None = None,
) -> ConfigDict:
    """The config with a preset applied.

    Args:
        config: A base's config; changed and returned.
        preset: Name in `PRESETS` or `more`; "" for "none".
        early: Layer of decoupled terms in this encoder.
        last: Its last layer.
        early_pool: What decoupled terms read there: "cls", or "mean_patch" in an
            encoder without class token.
        own: Regularizer -> settings this base gives it; a preset's come after them.
        more: Presets of this base alone.

    Returns:
        The config.

    Raises:
        ValueError: If the preset is not known, or needs a layer the encoder lacks.
    """
    known = {**PRESETS, **(more or {})}
    preset = preset or "none"
    if preset not in known:
        close = difflib.get_close_matches(preset, known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"no preset is called {preset!r}.{hint} There are: {', '.join(known)}."
        )
    chosen = known[preset]
    settings = settings_of(REGULARIZERS, "regularizer", chosen.regularizer)
    regularizer = ConfigDict(settings)
    regularizer.update((own or {}).get(chosen.regularizer, {}))
    if chosen.layer is not None:
        named = {EARLY: early, LAST: last}
        layer = named[chosen.layer] if chosen.layer in named else int(chosen.layer)
        if layer > last:
            raise ValueError(
                f"preset {preset!r} reads layer {layer}; this encoder has {last}."
            )
        regularizer.layer = layer
        if layer < last and "pool" in regularizer:
            regularizer.pool = early_pool
    config.regularizer = regularizer
    every = tuple(range(1, last + 1))
    values = {k: every if v == _EVERY else v for k, v in chosen.settings.items()}
    config.update_from_flattened_dict(values)
    return config


def sibling(file: str, name: str, preset: str) -> Callable[..., ConfigDict]:
    """`get_config` of another config file in the same folder, with a preset.

    Args:
        file: `__file__` of the config that stands for it.
        name: Name of the other file, without its ending.
        preset: What its `get_config` is given.

    Returns:
        A function that takes no preset of its own, and says so.
    """
    path = pathlib.Path(file).with_name(f"{name}.py")

    def get_config(other: str = "") -> ConfigDict:
        if other:
            raise ValueError(
                f"{file} stands for {path}:{preset} and takes no preset; for {other!r} "
                f"use {path} itself."
            )
        return runpy.run_path(str(path))["get_config"](preset)

    return get_config
