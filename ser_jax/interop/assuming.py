"""Modules and variables out of what a file says, and what is assumed of the rest."""

from typing import Any

from ser_jax.interop.answers import Answer, Given, guess
from ser_jax.interop.choosing import Chosen
from ser_jax.interop.families.found import FoundResNet, FoundViT
from ser_jax.interop.files.refused import UnreadableError
from ser_jax.models.outputs import norm_grid
from ser_jax.models.resnet import ResNet
from ser_jax.models.vit import ViT

_UNKNOWN = "dino"  # filter where none is known: it is not used before it is given


class Assumptions:
    """What is said and guessed of an encoder.

    Attributes:
        given: Name -> value and who said it.
        guessed: Name -> value and why.
        asked: Name -> what is not known, and how to say it.
    """

    def __init__(self, given: Given, otherwise: Given):
        """Nothing assumed yet."""
        self._given, self._otherwise = given, otherwise
        self.given: dict[str, str] = {}
        self.guessed: dict[str, str] = {}
        self.asked: dict[str, str] = {}

    def said(self, name: str) -> Any:
        """What the user says; None: nothing."""
        return getattr(self._given, name)

    def otherwise(self, name: str) -> Answer | None:
        """What holds if neither the user nor the layout says more; None: nothing."""
        value = getattr(self._otherwise, name)
        return None if value is None else guess(value, "which nothing contradicts")

    def settle(self, name: str, answer: Answer | None, why: str = "") -> Any:
        """A value, by the user, else by the layout.

        Args:
            name: Of the value, in `Given` and on command lines.
            answer: The layout's.
            why: Why it must be said if the layout has no answer.

        Returns:
            The value.

        Raises:
            UnreadableError: If nobody says it.
        """
        answer = answer or self.otherwise(name)
        value = self.said(name)
        if value is not None:
            self.given[name] = f"{_text(value)}, as asked"
            if answer is not None and answer.sure and answer.value != value:
                self.given[name] += f"; {_text(answer.value)} by {answer.why}"
            return value
        if answer is None:
            raise UnreadableError(f"does not say {name}: {why}; give --{name}")
        into = self.given if answer.sure else self.guessed
        into[name] = f"{_text(answer.value)}, {answer.why}"
        return answer.value


def assume_vit(
    chosen: Chosen, found: FoundViT, assumed: Assumptions
) -> tuple[ViT, dict[str, Any]]:
    """A ViT.

    Args:
        chosen: Which encoder it is.
        found: What its arrays say.
        assumed: Takes what is assumed.

    Returns:
        The module, of the table's image size, and its variables.

    Raises:
        UnreadableError: If something must be given, or does not fit the arrays.
    """
    layout, place = chosen.layout, chosen.place
    num_heads = assumed.settle(
        "num_heads",
        layout.num_heads(place, found),
        f"no shape tells, and {layout.about} has no one number of heads at width "
        f"{found.width}; the wrong one loads and is silently bad",
    )
    if type(num_heads) is not int or num_heads < 1 or found.width % num_heads:
        raise UnreadableError(
            f"num_heads {num_heads} does not divide width {found.width}"
        )
    late = layout.late(place, found)
    cls_insert = assumed.settle(
        "cls_insert",
        late,
        "the class token joins after a block, which is not in the arrays",
    )
    _check_late(found, cls_insert)
    norm_eps = assumed.settle(
        "norm_eps",
        layout.epsilon(place),
        "without its folder's config.json LayerNorm's epsilon is not known",
    )
    if not 0 < norm_eps < 1:
        raise UnreadableError(f"norm_eps {norm_eps} is not between 0 and 1")
    resample = assumed.settle("positions", _filter(chosen, found, assumed))
    params = dict(found.params, pos_embed=found.table)
    if cls_insert == 0:
        entry = found.cls_entry
        params["cls_pos_embed"] = (
            0 * found.params["cls_token"] if entry is None else entry
        )
    grid_layers: tuple[int, ...] = ()
    if found.norm_equiv is not None:
        grid_layers = (cls_insert,)
        params[norm_grid(cls_insert)] = found.norm_equiv
    try:
        module = ViT(
            width=found.width,
            depth=found.depth,
            num_heads=num_heads,
            patch_size=found.patch_size,
            image_size=found.side * found.patch_size,
            cls_insert=cls_insert,
            grid_layers=grid_layers,
            pos_embed="learned",
            mlp_ratio=_ratio(found.hidden, found.width),
            norm_eps=norm_eps,
            resample=resample,
        )
        module.clone()
    except ValueError as error:
        raise UnreadableError(str(error)) from error
    return module, {"params": params}


def assume_resnet(
    chosen: Chosen, found: FoundResNet, assumed: Assumptions, given: Given
) -> tuple[ResNet, dict[str, Any]]:
    """A ResNet.

    Args:
        chosen: Which encoder it is.
        found: What its arrays say.
        assumed: Takes what is assumed.
        given: What the user says.

    Returns:
        The module and its variables.

    Raises:
        UnreadableError: If the user says what a ResNet does not have.
    """
    for name in ("num_heads", "cls_insert", "norm_eps", "positions"):
        if getattr(given, name) is not None:
            raise UnreadableError(
                f"holds a ResNet, which has no {name}: leave --{name} out"
            )
    layout = chosen.layout
    size = assumed.settle("image_size", layout.image_size(chosen.place, found))
    if type(size) is not int or size < 1:
        raise UnreadableError(f"image_size {size} is no number of pixels")
    padding = layout.small_padding if found.small_images else None
    if found.small_images:
        assumed.guessed["stem"] = (
            f"3 x 3, stride 1, no pool, padding {padding or 1}: {layout.about}"
        )
    try:
        module = ResNet(
            found.stage_sizes,
            found.block,
            image_size=size,
            num_filters=found.num_filters,
            small_images=found.small_images,
            stem_padding=padding,
        )
    except ValueError as error:
        raise UnreadableError(str(error)) from error
    return module, dict(found.variables)


def _filter(chosen: Chosen, found: FoundViT, assumed: Assumptions) -> Answer:
    """How positions are resampled: by the layout, else what is assumed for now."""
    layout, grid = chosen.layout, f"{found.side} x {found.side}"
    if layout.resample is not None:
        return guess(layout.resample, f"as {layout.about} resamples them")
    if answer := assumed.otherwise("positions"):
        return answer
    if assumed.said("positions") is None:
        assumed.asked["positions"] = (
            f"{layout.about} does not tell how positions go to other grids than "
            f"{grid}: give --positions"
        )
    return guess(_UNKNOWN, f"for their own grid, {grid}, alone: it is not known")


def _check_late(found: FoundViT, cls_insert: Any) -> None:
    last = found.depth - 1
    if type(cls_insert) is not int or not 0 <= cls_insert <= last:
        raise UnreadableError(f"cls_insert {cls_insert} is not in 0..{last}")
    if cls_insert and found.cls_entry is not None:
        raise UnreadableError(
            f"cls_insert {cls_insert}: the position table has an entry for the class "
            "token, which joins at the input; leave it out"
        )
    if not cls_insert and found.norm_equiv is not None:
        raise UnreadableError(
            f"cls_insert 0: with norm_equiv the class token joins later, after one of "
            f"blocks 1..{last}"
        )


def _ratio(hidden: int, width: int) -> float:
    """A ratio that gives back the hidden width when it is multiplied and cut."""
    ratio = hidden / width
    return ratio if int(ratio * width) == hidden else (hidden + 0.5) / width


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
