"""A model card: what an encoder is, where it comes from, how to use it."""

from collections.abc import Mapping
from typing import Any

from ser_jax.data.crops import eval_resize_px
from ser_jax.interop.export.outgoing import Outgoing, Target
from ser_jax.models.vit import ViT
from ser_jax.storage.tables import table, to_text

_HEAD = """---
license: # fill in: under which licence others may use these weights
library_name: {library}
tags: [self-supervised, image-feature-extraction, ser_jax]
---
"""
_LICENCE = "Fill in: the licence, and that of the data if it asks for one."


def card(target: Target, encoder: Outgoing, name: str, about: Mapping[str, Any]) -> str:
    """The text of the README.md beside exported weights.

    Args:
        target: The format.
        encoder: What is exported.
        name: Its title.
        about: As of `export`.

    Returns:
        Markdown, headed as Hugging Face's hub has it.
    """
    parts = {
        f"# {name}": _what(encoder),
        "## Training": _training(about),
        "## Images": _images(encoder),
        "## Load": _load(target, encoder),
        "## Measured": _measured(about.get("measured") or {}),
        "## Licence": _LICENCE,
    }
    text = "\n\n".join(f"{title}\n\n{body}" for title, body in parts.items())
    return _HEAD.format(library=target.library) + "\n" + text


def _what(encoder: Outgoing) -> str:
    module = encoder.module
    if isinstance(module, ViT):
        joins = (
            f"after block {module.cls_insert}" if module.cls_insert else "at the input"
        )
        what = (
            f"Vision transformer of {module.depth} blocks, width {module.width}, "
            f"{module.num_heads} heads, patches of {module.patch_size} px, "
            f"{module.pos_embed} positions; its class token joins {joins}. LayerNorm's "
            f"epsilon is {module.norm_eps:g}."
        )
    else:
        stem = "3 x 3" if module.small_images else "7 x 7"
        stages = ", ".join(map(str, module.stage_sizes))
        what = (
            f"ResNet of {module.block} blocks, {stages} in its stages, "
            f"{module.num_filters} filters in the first, a stem of {stem}. Its cls is "
            "the mean of the last map."
        )
    return f"{what} No classifier. Exported by ser_jax."


def _training(about: Mapping[str, Any]) -> str:
    lines = [
        f"- {name}: {to_text(value)}"
        for name, value in about.items()
        if name != "measured"
    ]
    return "\n".join(lines) or "Not known."


def _images(encoder: Outgoing) -> str:
    side = encoder.module.image_size
    resize = eval_resize_px(side)
    crop = f", the central square of {side} px" if resize > side else ""
    return (
        f"RGB; the short side is resized to {resize} px (bicubic, antialiased){crop}. "
        "Normalised: (pixels / 255 - mean) / std, with\n\n"
        f"    mean = {list(encoder.mean)}\n    std = {list(encoder.std)}"
    )


def _load(target: Target, encoder: Outgoing) -> str:
    notes = "\n".join(f"- {note}" for note in target.notes(encoder))
    return f"In this folder:\n\n```python\n{target.load(encoder)}\n```\n\n{notes}"


def _measured(measured: Mapping[str, Any]) -> str:
    if not measured:
        return "Nothing yet."
    rows = [(str(name), to_text(value)) for name, value in measured.items()]
    return table([("", "value"), *rows])
