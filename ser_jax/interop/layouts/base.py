"""What a layout is: where encoders stand in a file, and what its library does."""

from collections.abc import Mapping
from typing import Any

from ser_jax.interop.answers import IMAGENET, Answer, Normalization, guess
from ser_jax.interop.families.found import FoundResNet, FoundViT
from ser_jax.interop.files.refused import UnreadableError
from ser_jax.interop.finding import Place

# Roles of which a target follows the online network.
TARGETS = ("teacher", "momentum", "ema")
# Heads that most libraries give to a ViT of a width.
_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}


class Layout:
    """Where a library puts encoders, and what it does that no key says.

    Attributes:
        name: What the user calls it.
        about: What it is, in words.
        roles: Of its encoders, the default first.
        resample: How it resamples positions, see `resample_positions`; None: keys do
            not tell.
        norm_eps: What its LayerNorms add to the variance; None: keys do not tell.
        small_padding: Of a 3 x 3 stem, see `ResNet.stem_padding`.
        normalization: Of its images; None: it differs.
    """

    name: str
    about: str
    roles: tuple[str, ...] = ("online",)
    resample: str | None = None
    norm_eps: float | None = 1e-6
    small_padding: int | None = None
    normalization: Normalization | None = IMAGENET

    def role(self, place: Place) -> str | None:
        """The role of an encoder; None if it is not of this layout.

        Args:
            place: Where it is.
        """
        raise NotImplementedError

    def num_heads(self, place: Place, found: FoundViT) -> Answer | None:
        """Attention heads of a ViT; None if they must be given.

        Args:
            place: Where it is.
            found: What its arrays say.

        Raises:
            UnreadableError: If what lies beside the file contradicts its arrays.
        """
        if found.is_sincos and found.width in (384, 768):
            return guess(12, f"MoCo v3's, as its positions are, at width {found.width}")
        if found.width in _HEADS:
            heads = _HEADS[found.width]
            return guess(heads, f"what most ViTs of width {found.width} have")
        return None

    def epsilon(self, place: Place) -> Answer | None:
        """What LayerNorms add to the variance; None if it must be given.

        Args:
            place: Where the ViT is.
        """
        if self.norm_eps is None:
            return None
        return guess(self.norm_eps, f"as {self.about} has it")

    def late(self, place: Place, found: FoundViT) -> Answer | None:
        """Blocks after which the class token joins; None if it must be given.

        Args:
            place: Where it is.
            found: What its arrays say.
        """
        if found.cls_entry is not None:
            return Answer(0, "its position table has an entry for it")
        if found.norm_equiv is None:
            return guess(0, "no norm_equiv: at the input, without a position")
        layer = place.argument("equiv_layer")
        if type(layer) is not int:
            return None
        return Answer(layer, "args.equiv_layer of the file")

    def normalize(self, place: Place, found: FoundViT | FoundResNet) -> Answer | None:
        """Mean and standard deviation of images; None if they must be given.

        Args:
            place: Where the encoder is.
            found: What its arrays say.

        Raises:
            UnreadableError: If what the file says is no mean and deviation.
        """
        if self.normalization is None:
            return None
        return guess(self.normalization, "ImageNet's, as the library has it")

    def image_size(self, place: Place, found: FoundResNet) -> Answer:
        """Pixels a side of a ResNet's images.

        Args:
            place: Where it is.
            found: What its arrays say.
        """
        if found.small_images:
            return guess(32, "a 3 x 3 stem: CIFAR's")
        return guess(224, "a 7 x 7 stem: ImageNet's")

    def notes(self, place: Place) -> dict[str, str]:
        """What is done in another way than the library does, by name.

        Args:
            place: Where the encoder is.
        """
        return {}


def in_path(place: Place, *names: str) -> str | None:
    """The last name of an encoder's path, if it is one of these.

    Args:
        place: Where it is.
        *names: Of dictionaries.

    Returns:
        The name, or None.
    """
    last = place.path[-1] if place.path else None
    return last if last in names else None


def agree(where: str, said: Mapping[str, Any], shapes: Mapping[str, Any]) -> None:
    """Checks what a config says against what the arrays say.

    Args:
        where: Of the config.
        said: Its settings.
        shapes: What they must be, if they are there.

    Raises:
        UnreadableError: If one is another.
    """
    for name, value in shapes.items():
        there = said.get(name)
        if isinstance(value, int) and there == [value, value]:
            continue  # height and width
        if there is not None and there != value:
            raise UnreadableError(
                f"{where} says {name} {there!r}, its arrays {value!r}: they do not "
                "belong together"
            )


def mlp_ratio(said: Any, found: FoundViT) -> float:
    """Hidden width over width, as a config says it if that gives the hidden width.

    Args:
        said: What the config says, rounded perhaps.
        found: What the arrays say.

    Returns:
        The ratio.
    """
    fits = isinstance(said, int | float) and abs(said) < found.hidden + 1
    if fits and int(said * found.width) == found.hidden:
        return said
    return found.hidden / found.width


def three(where: str, values: Any, scale: float = 1.0) -> tuple[float, float, float]:
    """A number a channel.

    Args:
        where: Who says it, for the error.
        values: What is said.
        scale: What they are divided by.

    Returns:
        Three numbers.

    Raises:
        UnreadableError: If it is something else.
    """
    if (
        not isinstance(values, list | tuple)
        or len(values) != 3
        or not all(isinstance(x, int | float) for x in values)
    ):
        raise UnreadableError(
            f"{where} is {values!r:.60}, where a number for each of three channels was "
            "expected"
        )
    red, green, blue = (float(x) / scale for x in values)
    return red, green, blue
