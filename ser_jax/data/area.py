"""Shrinking by averages over areas: OpenCV's INTER_AREA bit for bit, in less time.

OpenCV averages along each row once for every row of the result that it is part of, and
pixel by pixel. Here both averages, along rows and then of rows, are a sparse matrix's.
"""

import functools

import cv2
import numpy as np
from scipy import sparse

_LEAST = 1e-3  # OpenCV's: a smaller part of a pixel does not count


def shrink(image: np.ndarray, size_px: int) -> np.ndarray:
    """The picture as a square, each pixel the mean of what it covers.

    Args:
        image: `[h, w, 3]`, uint8; h and w at least `size_px`.
        size_px: Side of the square.

    Returns:
        `[size_px, size_px, 3]`, uint8: what `cv2.resize(..., INTER_AREA)` gives, sum
        for sum in the same order.
    """
    height, width = image.shape[:2]
    if height % size_px == width % size_px == 0:  # it has integers of its own for that
        return cv2.resize(image, (size_px, size_px), interpolation=cv2.INTER_AREA)
    columns = cv2.transpose(image).astype(np.float32)  # [w, h, 3]
    narrow = _means(width, size_px) @ columns.reshape(width, -1)  # [s, h * 3]
    rows = cv2.transpose(narrow.reshape(size_px, height, 3))  # [h, s, 3]
    square = _means(height, size_px) @ rows.reshape(height, -1)  # [s, s * 3]
    return cv2.convertScaleAbs(square.reshape(size_px, size_px, 3))  # rounds to even


@functools.lru_cache(maxsize=4096)
def _means(length: int, size: int) -> sparse.csr_array:
    """`[size, length]`: the share of each of `length` pixels in each of `size`."""
    scale = 1 / (size / length)  # so rounded
    start = np.arange(size) * scale
    stop = start + scale
    cell = np.minimum(scale, length - start)
    last = np.minimum(np.floor(stop), length - 1)  # begins in the cell, may end beyond
    first = np.minimum(np.ceil(start), last)  # that begins in the cell
    before, beyond = first - start, stop - last
    place = np.arange(-1, int(scale) + 2)  # [k], from `first` on
    middle = (place >= 0) & (place < (last - first)[:, None])  # [size, k]
    share = middle.astype(np.float64)
    share[:, 0] = np.where(before > _LEAST, before, 0)
    at_end = place == (last - first)[:, None]
    share += at_end * np.where(beyond > _LEAST, np.minimum(beyond, 1), 0)[:, None]
    share = np.minimum(share, cell[:, None]) / cell[:, None]
    row, column = np.nonzero(share)
    pixel = first[row].astype(int) + place[column]
    weights = share[row, column].astype(np.float32)
    return sparse.csr_array((weights, (row, pixel)), (size, length))
