"""Frames of ImageNet-P's clips as records, generated or from the published videos."""

import dataclasses
import functools
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import cv2
import grain
import numpy as np
from etils import epath

from ser_jax.data.decode import UnreadableImageError, decode_image
from ser_jax.data.host_transforms import resize_short_side
from ser_jax.data.sources import Source
from ser_jax.evaluate.robustness.class_folders import list_files
from ser_jax.evaluate.robustness.frames import RESIZE_PX, num_frames, perturbed_frame

# The loader reads frames in order, so that its threads are in one clip or two.
_NUM_KEPT = 4


class Loaded(NamedTuple):
    """What all frames of a clip need.

    Attributes:
        pixels: The image, `[h, w, 3]`, or all frames, `[frames, h, w, 3]`; uint8.
        label: Class of the clip.
    """

    pixels: np.ndarray
    label: int


class _OncePerClip:
    """Keeps the last few clips; of many threads the first loads one, others wait."""

    def __init__(self, load: Callable[[int], Loaded]):
        self._load = functools.lru_cache(maxsize=_NUM_KEPT)(load)
        self._locks = [threading.Lock() for _ in range(_NUM_KEPT)]

    def __call__(self, clip: int) -> Loaded:
        with self._locks[clip % _NUM_KEPT]:
            return self._load(clip)


@dataclasses.dataclass(frozen=True)
class Clips:
    """Clips of one perturbation, of one length.

    Attributes:
        num_clips: How many.
        num_frames: Length of each.
        load: Clip -> what its frames need; kept for a while.
        frame: (what was loaded, clip, step) -> `[size, size, 3]`, uint8.
    """

    num_clips: int
    num_frames: int
    load: Callable[[int], Loaded]
    frame: Callable[[np.ndarray, int, int], np.ndarray]

    def source(self, name: str, chosen: range) -> Source:
        """The frames of consecutive clips, clip by clip.

        Args:
            name: Of the perturbation.
            chosen: The clips.

        Returns:
            A source whose "image" is decoded already: for `AsItIs`.
        """
        return Source(
            name="clips",
            split=name,
            num_classes=0,  # not None: the records have labels
            fingerprint={},
            records=_Frames(self, chosen),
        )


@dataclasses.dataclass(frozen=True)
class _Frames(Sequence[dict[str, Any]]):
    clips: Clips
    chosen: range

    def __len__(self) -> int:
        return len(self.chosen) * self.clips.num_frames

    def __getitem__(self, index: Any) -> Any:
        position, step = divmod(index, self.clips.num_frames)
        clip = self.chosen[position]
        pixels, label = self.clips.load(clip)
        return {"image": self.clips.frame(pixels, clip, step), "label": label}


class AsItIs(grain.transforms.Map):
    """The transform for records that are decoded already."""

    def map(self, example: dict[str, Any]) -> dict[str, Any]:
        """The record.

        Args:
            example: "image", "label" and "index".

        Returns:
            The same, numbers as int64.
        """
        return {
            "image": example["image"],
            "label": np.int64(example["label"]),
            "index": np.int64(example["index"]),
        }


def generated_clips(source: Source, name: str, *, size_px: int, seed: int) -> Clips:
    """Clips made from images.

    Args:
        source: Clean images, a clip of each.
        name: Of the perturbation.
        size_px: Side of the frames: 32 or 224.
        seed: Seeds what is drawn, >= 0.

    Returns:
        The clips; they depend on the seed and the images alone.
    """

    def load(clip: int) -> Loaded:
        record = source[clip]
        try:
            image = decode_image(record["image"])
        except UnreadableImageError as error:
            raise source.unreadable(clip, error) from error
        return Loaded(resize_short_side(image, RESIZE_PX[size_px]), record["label"])

    def frame(image: np.ndarray, clip: int, step: int) -> np.ndarray:
        key = (seed, clip, *name.encode())
        return perturbed_frame(image, name, step, size_px=size_px, key=key)

    return Clips(len(source), num_frames(name, size_px), _OncePerClip(load), frame)


def published_clips(
    folder: epath.Path, labels: dict[str, int], *, size_px: int
) -> Clips:
    """Clips of ImageNet-P.

    Args:
        folder: `<class>/*.mp4` of one perturbation.
        labels: Label of each class folder.
        size_px: Side the frames must have.

    Returns:
        The clips. One that cannot be read raises ValueError when it is wanted.

    Raises:
        ValueError: If there are none.
    """
    files = list_files(folder, labels, (".mp4",)).files

    def load(clip: int) -> Loaded:
        name, label = files[clip]
        frames = read_clip(folder / name)
        if frames.shape[1:] != (size_px, size_px, 3):
            raise ValueError(
                f"{folder / name} has frames of {list(frames.shape[1:])}, but the "
                f"classifier takes {size_px} px; ImageNet-P is for 224 px."
            )
        return Loaded(frames, label)

    length = len(load(0).pixels)

    def frame(frames: np.ndarray, clip: int, step: int) -> np.ndarray:
        if len(frames) != length:
            raise ValueError(
                f"{folder / files[clip][0]} has {len(frames)} frames, but "
                f"{folder / files[0][0]} has {length}. Unpack the archive again."
            )
        return frames[step]

    return Clips(len(files), length, _OncePerClip(load), frame)


def read_clip(path: str | os.PathLike[str]) -> np.ndarray:
    """The frames of a video.

    Args:
        path: The file.

    Returns:
        Frames, `[frames, h, w, 3]`, RGB, uint8.

    Raises:
        ValueError: If not a single one can be decoded.
    """
    capture = cv2.VideoCapture(os.fspath(path))
    frames = []
    try:
        while True:
            is_read, frame = capture.read()
            if not is_read:
                break
            frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    finally:
        capture.release()
    if not frames:
        raise ValueError(
            f"{path} cannot be decoded as video. Unpack the archive it came from "
            "again; if it plays elsewhere, this build of OpenCV lacks its codec."
        )
    return np.stack(frames)
