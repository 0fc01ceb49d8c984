"""What tells encoders apart: arrays, and all that decides what they give."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ser_jax.models.resnet import ResNet
from ser_jax.models.vit import ViT
from ser_jax.storage.tables import flatten

# Attributes that say how an encoder is trained or computed, not what it gives.
_HOW = (
    *("parent", "name", "dtype", "init_scheme", "zero_init_residual"),
    *("freeze_patch_embed", "drop_path_rate", "attention", "remat", "scan"),
)
_INT_DIGITS = 15  # hexadecimal, of a digest as a number: below 2 ** 63


def settings(module: ViT | ResNet) -> dict[str, Any]:
    """Class and attributes that decide what an encoder gives, for JSON.

    Args:
        module: The encoder.

    Returns:
        {"class", "attributes"}.
    """
    names = [f.name for f in dataclasses.fields(module) if f.name not in _HOW]
    attributes = {name: getattr(module, name) for name in names}
    return {"class": type(module).__name__, "attributes": attributes}


def sha256(
    about: Mapping[str, Any], variables: Mapping[str, Any], mean: Any, std: Any
) -> str:
    """SHA-256 of arrays, settings and normalisation.

    Args:
        about: What `settings` gives.
        variables: Its variables, host arrays.
        mean: Channel means of normalised images; None: not known.
        std: Channel standard deviations; None: not known.

    Returns:
        Hexadecimal digits.
    """
    beside = [about, mean and list(mean), std and list(std)]
    found = hashlib.sha256(json.dumps(beside, sort_keys=True).encode())
    for name, array in sorted(flatten(variables).items()):
        found.update(f"{name} {array.dtype.name} {array.shape}".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def digest(
    module: ViT | ResNet, variables: Mapping[str, Any], mean: Any, std: Any
) -> int:
    """The same as a number below 2 ** 63; arguments as of `sha256`."""
    return int(sha256(settings(module), variables, mean, std)[:_INT_DIGITS], 16)
