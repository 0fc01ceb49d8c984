"""What a command line can say of a file of weights."""

from typing import Any

from absl import flags

from ser_jax.interop.answers import IMAGENET, Given, Normalization
from ser_jax.interop.layouts import LAYOUTS


def define_given_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines a flag for each field of `Given`.

    Args:
        flag_values: Where.
    """
    where: dict[str, Any] = {"flag_values": flag_values}
    names = ", ".join(layout.name for layout in LAYOUTS)
    flags.DEFINE_string(
        "layout", None, f"Of --weights, where keys do not tell: {names}.", **where
    )
    flags.DEFINE_string(
        "weights_encoder", None, "Which encoder of --weights, if several.", **where
    )
    flags.DEFINE_integer("num_heads", None, "Attention heads of --weights.", **where)
    flags.DEFINE_integer(
        "cls_insert", None, "Blocks before the class token of --weights.", **where
    )
    flags.DEFINE_float("norm_eps", None, "Epsilon of norms of --weights.", **where)
    flags.DEFINE_enum(
        "positions",
        None,
        ["dino", "hf", "timm"],
        "How positions of --weights are resampled.",
        **where,
    )
    flags.DEFINE_integer(
        "image_size", None, "Pixels a side that --weights are given.", **where
    )
    flags.DEFINE_list(
        "normalize",
        None,
        "Mean and standard deviation of images for --weights, six numbers in [0, 1]; "
        "or imagenet.",
        **where,
    )


def given_from_flags(flag_values: flags.FlagValues = flags.FLAGS) -> Given:
    """What the flags say.

    Args:
        flag_values: Where they are defined.

    Returns:
        The answers.

    Raises:
        ValueError: If `--normalize` is not six numbers.
    """
    values = {
        name: flag_values[name].value
        for name in ("layout", "num_heads", "cls_insert", "norm_eps", "positions")
    }
    return Given(
        role=flag_values["weights_encoder"].value,
        image_size=flag_values["image_size"].value,
        normalize=_normalization(flag_values["normalize"].value),
        **values,
    )


def _normalization(texts: list[str] | None) -> Normalization | None:
    if texts is None or texts == ["imagenet"]:
        return None if texts is None else IMAGENET
    try:
        r, g, b, *std = map(float, texts)
        x, y, z = std
    except ValueError:
        raise ValueError(
            "--normalize wants imagenet or six numbers, mean and standard deviation of "
            f"red, green and blue in [0, 1]; got {','.join(texts)}."
        ) from None
    return (r, g, b), (x, y, z)
