"""Shrinking by areas gives OpenCV's own bytes."""

import cv2
import numpy as np
import pytest

from ser_jax.data.area import shrink


@pytest.mark.parametrize("size_px", [7, 32, 224])
def test_the_bytes_are_opencvs(size_px):
    """Red if one weight, the order of a sum or a rounding is another.

    Sides from the size itself on, where a whole multiple is a case of its own; once
    all that are less than twice as long.
    """
    rng = np.random.default_rng(size_px)
    longest = 4 * size_px
    picture = rng.integers(0, 256, (longest, longest, 3), dtype=np.uint8)
    if size_px == 32:
        sides = [(side, 96 - side // 2) for side in range(32, 64)]
    else:
        sides = rng.integers(size_px, longest + 1, (12, 2)).tolist()
    sides += [(size_px, size_px), (2 * size_px, 2 * size_px), (size_px, longest)]
    for height, width in sides:
        crop = picture[:height, longest - width :]
        expected = cv2.resize(crop, (size_px, size_px), interpolation=cv2.INTER_AREA)
        np.testing.assert_array_equal(shrink(crop, size_px), expected)
