"""Encoders out of files of weights of this package or of others."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from ser_jax.interop.answers import RGB, Given
from ser_jax.interop.assuming import Assumptions, assume_resnet, assume_vit
from ser_jax.interop.choosing import Chosen, choose
from ser_jax.interop.families.found import FoundViT
from ser_jax.interop.families.resnet import read_resnet
from ser_jax.interop.families.vit import read_vit
from ser_jax.interop.files.refused import RefusedFileError, UnreadableError
from ser_jax.interop.finding import find_places
from ser_jax.interop.folder import Source, open_source
from ser_jax.interop.identity import digest
from ser_jax.interop.own import is_own, read_own
from ser_jax.models.pos_embed import resample_positions
from ser_jax.models.resnet import ResNet
from ser_jax.models.vit import ViT
from ser_jax.storage.files import PathLike

_MOST_LISTED = 8
_COUNTER = "num_batches_tracked"


@dataclasses.dataclass(frozen=True, eq=False)
class Imported:
    """An encoder out of a file.

    Attributes:
        module: The encoder.
        variables: {"params"}, and "batch_stats" of a ResNet: host arrays, float32.
        mean: Channel means of normalised images; None: not known, see `asked`.
        std: Channel standard deviations; None likewise.
        layout: Name of its layout.
        role: Which of the file's encoders it is.
        roles: The others.
        given: What was said, by the user or beside the arrays: name -> value and by
            whom.
        guessed: What nobody said: name -> value and why.
        asked: What is not known and must be given for some uses: name -> how.
        ignored: Keys under the encoder's prefix that are not its own.
        is_sincos: Whether its positions are MoCo v3's fixed ones.
        sha256: The file's.
        digest: A number that tells it from others: arrays, heads, epsilon, filter,
            class token's layer, padding, normalisation.
    """

    module: ViT | ResNet
    variables: Mapping[str, Any]
    mean: RGB | None
    std: RGB | None
    layout: str
    role: str
    roles: tuple[str, ...]
    given: Mapping[str, str]
    guessed: Mapping[str, str]
    asked: Mapping[str, str]
    ignored: tuple[str, ...]
    is_sincos: bool
    sha256: str
    digest: int

    def describe(self) -> str:
        """What it is, for people: lines joined by line breaks."""
        others = f"; also there: {', '.join(self.roles)}" if self.roles else ""
        lines = [
            f"layout      {self.layout}, {self.role}{others}",
            f"encoder     {_architecture(self.module)}",
        ]
        for title, found in (
            ("known", self.given),
            ("guessed", self.guessed),
            ("not known", self.asked),
        ):
            lines += [f"{title:<11} {name}: {why}" for name, why in found.items()]
        if self.ignored:
            lines.append(f"ignored     {_summary(self.ignored)}")
        lines.append(f"SHA-256     {self.sha256}")
        return "\n".join(lines)


def import_weights(
    path: PathLike, given: Given | None = None, otherwise: Given | None = None
) -> Imported:
    """An encoder out of a file or folder of weights.

    Nothing in it is run. Every key of the encoder is used or on a short list of what is
    ignored; any other refuses the file.

    Args:
        path: A file of safetensors or `torch.save`, or a folder of Hugging Face, timm
            or this package.
        given: What the user says of it.
        otherwise: What holds where neither the user, the file nor the library whose
            layout it has says more: what would else be asked for.

    Returns:
        The encoder, and what was assumed of it.

    Raises:
        RefusedFileError: If it is no file of weights or of a model that the package
            does not have, or if something must be given; one line.
        OSError: If it is not there or cannot be read.
    """
    given, source = given or Given(), open_source(path)
    try:
        if is_own(source.file):
            return _resized(_own(source, given), given)
        assumed = Assumptions(given, otherwise or Given())
        return _resized(_other(source, given, assumed), given)
    except UnreadableError as error:
        raise RefusedFileError(source.file.path, str(error)) from error


def at_image_size(imported: Imported, image_size: int) -> Imported:
    """The same for images of another size: positions resampled once.

    Args:
        imported: The encoder.
        image_size: Pixels a side.

    Returns:
        The encoder, with a table of that size.

    Raises:
        ValueError: If the patch size (a ResNet's total stride) does not divide it, or
            it is not known how positions are resampled; of `UnreadableError`.
    """
    old, variables = imported.module, imported.variables
    if image_size == old.image_size:
        return imported
    if image_size <= 0 or image_size % old.patch_size:
        raise UnreadableError(
            f"image_size {image_size} px is not a multiple of {old.patch_size} px"
        )
    if "positions" in imported.asked:
        raise UnreadableError(
            f"has positions of {old.image_size} px, and {image_size} px are asked for: "
            f"{imported.asked['positions']}"
        )
    module = old.clone(image_size=image_size)
    if isinstance(old, ViT) and old.pos_embed == "learned":
        side = image_size // old.patch_size
        table = jnp.asarray(variables["params"]["pos_embed"])
        resampled = resample_positions(
            table, jnp.array([[side, side]]), side, old.resample
        )
        flat = np.asarray(resampled, np.float32).reshape(side * side, -1)
        variables = {**variables, "params": {**variables["params"], "pos_embed": flat}}
    number = digest(module, variables, imported.mean, imported.std)
    return dataclasses.replace(
        imported, module=module, variables=variables, digest=number
    )


def _own(source: Source, given: Given) -> Imported:
    """An encoder that this package wrote: nothing is guessed."""
    for name in ("layout", "role", "num_heads", "cls_insert", "norm_eps", "positions"):
        if getattr(given, name) is not None:
            flag = "weights_encoder" if name == "role" else name
            raise UnreadableError(f"says its {name} itself: leave --{flag} out")
    module, variables, (mean, std) = read_own(source.file)
    said = {"all": "the file's metadata"}
    if given.normalize is not None:
        (mean, std), said["normalize"] = given.normalize, f"{given.normalize}, as asked"
    return Imported(
        module,
        variables,
        mean,
        std,
        layout="ser_jax",
        role="online",
        roles=(),
        given=said,
        guessed={},
        asked={},
        ignored=(),
        is_sincos=isinstance(module, ViT) and module.pos_embed == "sincos",
        sha256=source.file.sha256,
        digest=digest(module, variables, mean, std),
    )


def _other(source: Source, given: Given, assumed: Assumptions) -> Imported:
    """An encoder of another package, or in its layout."""
    places = find_places(
        source.file.content,
        keeps_paths=source.file.format != "safetensors",
        config=source.config,
        preprocessor=source.preprocessor,
    )
    chosen = choose(places, given)
    place, layout = chosen.place, chosen.layout
    found = read_resnet(place) if place.is_resnet else read_vit(place)
    module, variables = (
        assume_vit(chosen, found, assumed)
        if isinstance(found, FoundViT)
        else assume_resnet(chosen, found, assumed, given)
    )
    mean = std = None
    normalize = layout.normalize(place, found) or assumed.otherwise("normalize")
    if normalize is None and given.normalize is None:
        assumed.asked["normalize"] = (
            f"{layout.about} has no one mean and deviation of images: give --normalize"
        )
    else:
        mean, std = assumed.settle("normalize", normalize)
    _say_role(chosen, given, assumed)
    assumed.guessed.update(layout.notes(place))
    return Imported(
        module,
        variables,
        mean,
        std,
        layout=layout.name,
        role=chosen.role,
        roles=chosen.others,
        given=assumed.given,
        guessed=assumed.guessed,
        asked=assumed.asked,
        ignored=found.ignored,
        is_sincos=isinstance(found, FoundViT) and found.is_sincos,
        sha256=source.file.sha256,
        digest=digest(module, variables, mean, std),
    )


def _say_role(chosen: Chosen, given: Given, assumed: Assumptions) -> None:
    """Says which encoder is taken, if it could have been another."""
    others = ", ".join(chosen.others)
    if given.role is not None:
        assumed.given["role"] = f"{chosen.role}, as asked"
    elif others:
        assumed.guessed["role"] = (
            f"{chosen.role}, {chosen.layout.about}'s own choice, not {others}"
        )
    elif not chosen.place.keeps_paths and chosen.place.config is None:
        assumed.guessed["role"] = (
            f"{chosen.role}, a safetensors file does not keep which of several it was"
        )


def _resized(imported: Imported, given: Given) -> Imported:
    """The same for the images that were asked for."""
    size, module = given.image_size, imported.module
    if size is None or size == module.image_size:
        return imported
    said = {**imported.given, "image_size": f"{size}, as asked"}
    return dataclasses.replace(at_image_size(imported, size), given=said)


def _summary(keys: tuple[str, ...]) -> str:
    """Keys that are ignored, counters as their number, in a line."""
    listed = [key for key in keys if not key.endswith(_COUNTER)]
    more = len(listed) - _MOST_LISTED
    parts = listed[:_MOST_LISTED] + ([f"{more} more"] if more > 0 else [])
    if counters := len(keys) - len(listed):
        parts.append(f"{counters} of {_COUNTER}")
    return ", ".join(parts)


def _architecture(module: ViT | ResNet) -> str:
    """What a module is, in a line."""
    if isinstance(module, ResNet):
        return (
            f"ResNet, {module.block} blocks {'-'.join(map(str, module.stage_sizes))}, "
            f"{module.num_filters} filters, {module.image_size} px"
        )
    joins = f"after block {module.cls_insert}" if module.cls_insert else "at the input"
    side = module.image_size // module.patch_size
    return (
        f"ViT, width {module.width}, depth {module.depth}, {module.num_heads} heads, "
        f"patches of {module.patch_size} px, positions {side} x {side} "
        f"({module.image_size} px), class token {joins}, epsilon {module.norm_eps:g}"
    )
