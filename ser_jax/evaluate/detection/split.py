"""Pictures of one split with their boxes and classes."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from ser_jax.data.sources import Source
from ser_jax.evaluate.detection.annotations import LeftOut


class Categories(NamedTuple):
    """The classes, in the order of the labels.

    Attributes:
        ids: COCO's own, in which there may be gaps.
        names: Of the same.
    """

    ids: tuple[int, ...]
    names: tuple[str, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class CocoSplit:
    """Pictures of one split with their boxes; picklable.

    Attributes:
        name: "val2017", or "val2017[:10%]".
        categories: The classes of all splits opened together.
        image_ids: `[n]` int64.
        file_names: Of the pictures, n.
        sizes: `[n, 2]` int32: height and width, px, as the annotations say.
        starts: `[n + 1]` int64: boxes of picture i are `starts[i]:starts[i + 1]`.
        boxes: `[m, 4]` float64: x, y, width, height, px, as in the annotations: may
            reach beyond the picture.
        labels: `[m]` int32: index into `categories`.
        areas: `[m]` float64: px of the object; of its box, where that is not said.
        is_crowd: `[m]` bool: around many objects.
        source: The pictures, encoded, by position.
        left_out: Reason -> boxes that are not among these.
        fingerprint: What tells these data from others, wherever they are stored.
    """

    name: str
    categories: Categories
    image_ids: np.ndarray
    file_names: tuple[str, ...] = dataclasses.field(repr=False)
    sizes: np.ndarray = dataclasses.field(repr=False)
    starts: np.ndarray = dataclasses.field(repr=False)
    boxes: np.ndarray = dataclasses.field(repr=False)
    labels: np.ndarray = dataclasses.field(repr=False)
    areas: np.ndarray = dataclasses.field(repr=False)
    is_crowd: np.ndarray = dataclasses.field(repr=False)
    source: Source = dataclasses.field(repr=False)
    left_out: dict[str, LeftOut] = dataclasses.field(repr=False)
    fingerprint: dict[str, Any]

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.image_ids)

    @property
    def digest(self) -> str:
        """Of the fingerprint, 12 hexadecimal digits."""
        text = json.dumps(self.fingerprint, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def read(self, index: int) -> bytes:
        """An encoded picture.

        Args:
            index: Its position.

        Returns:
            The bytes.

        Raises:
            UnreadableRecordError: If it cannot be read, or has another shape than the
                annotations say; names it.
        """
        return self.source[index]["image"]

    def subset(self, indices: Sequence[int] | np.ndarray) -> Self:
        """Some of the pictures, with all their boxes.

        Args:
            indices: Their positions, in any order.

        Returns:
            The same kind of split.
        """
        chosen = np.asarray(indices, np.int64)
        counts = np.diff(self.starts)[chosen]
        starts = np.concatenate([[0], np.cumsum(counts)])
        rows = np.arange(starts[-1]) + np.repeat(
            self.starts[chosen] - starts[:-1], counts
        )
        image_ids = self.image_ids[chosen]
        return dataclasses.replace(
            self,
            image_ids=image_ids,
            file_names=tuple(self.file_names[i] for i in chosen),
            sizes=self.sizes[chosen],
            starts=starts,
            boxes=self.boxes[rows],
            labels=self.labels[rows],
            areas=self.areas[rows],
            is_crowd=self.is_crowd[rows],
            source=self.source.pick(chosen),
            fingerprint=self.fingerprint
            | {
                "num_images": len(chosen),
                "num_boxes": len(rows),
                "chosen": hashlib.sha256(image_ids.tobytes()).hexdigest()[:16],
            },
        )

    def ground_truth(self) -> dict[str, Any]:
        """The split as COCO's json has it: what detections are held against.

        Returns:
            Lists "images", "annotations" (crowds too, ids from 1 on), "categories",
            and "info", "licenses", which some tools want.
        """
        image_ids = self.image_ids.tolist()
        sizes = self.sizes.tolist()
        rows = zip(
            np.repeat(self.image_ids, np.diff(self.starts)).tolist(),
            np.array(self.categories.ids)[self.labels].tolist(),
            self.boxes.tolist(),
            self.areas.tolist(),
            self.is_crowd.astype(int).tolist(),
            strict=True,
        )
        keys = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")
        return {
            "info": {},
            "licenses": [],
            "images": [
                {"id": i, "file_name": name, "height": height, "width": width}
                for i, name, (height, width) in zip(
                    image_ids, self.file_names, sizes, strict=True
                )
            ],
            "annotations": [
                dict(zip(keys, (number, *row), strict=True))
                for number, row in enumerate(rows, 1)
            ],
            "categories": [
                {"id": i, "name": name}
                for i, name in zip(*self.categories, strict=True)
            ],
        }
