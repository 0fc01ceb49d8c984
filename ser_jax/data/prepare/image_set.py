"""What `prepare` turns into a TFDS data set, however it was stored before."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import tensorflow_datasets as tfds
from etils import epath


class PrepareError(Exception):
    """A mistake the user can mend; the message is one line that says how."""


class Item(NamedTuple):
    """One image on its way into a data set.

    Attributes:
        name: Unique in its split; names the image in reports.
        load: Returns the encoded image; called in a thread.
        fields: The other features of the example.
        done_frac: Share of the split that has been read, in [0, 1].
    """

    name: str
    load: Callable[[], bytes]
    fields: dict[str, Any]
    done_frac: float


@dataclasses.dataclass(frozen=True)
class ImageSplit:
    """The images of one split.

    Attributes:
        items: The images, read as they are asked for.
        num_bytes: Their size in all, roughly.
        num_published: How many there are as published; None if nobody has said.
    """

    items: Iterable[Item]
    num_bytes: int
    num_published: int | None = None


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """A data set to write.

    Attributes:
        name: TFDS name.
        version: TFDS version, "x.y.z".
        features: TFDS features: `image` and one per field of the items.
        splits: Split name -> images.
        understood: What was understood of the source, to be shown first.
        num_found: Images of all splits, where that is known before they are read.
        lost: Files of the source that are left out though they may be pictures: path,
            tab, reason.
        upright: Whether pictures are turned as their EXIF orientation says.
        archives: What it is read from, where that was published.
    """

    name: str
    version: str
    features: tfds.features.FeaturesDict
    splits: dict[str, ImageSplit]
    understood: str = ""
    num_found: int = 0
    lost: list[str] = dataclasses.field(default_factory=list)
    upright: bool = False
    archives: tuple[epath.Path, ...] = ()
