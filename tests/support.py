"""Helpers shared by tests."""

import numpy as np


def d4_on_array(d4: int, x: np.ndarray) -> np.ndarray:
    """D4 element on the first two axes: transpose, flip rows, flip columns."""
    x = np.swapaxes(x, 0, 1) if d4 & 4 else x
    x = x[::-1] if d4 & 2 else x
    return x[:, ::-1] if d4 & 1 else x


def assert_close(actual, expected, rel: float = 1e-4, abs: float = 1e-5):
    """Largest difference within `rel` of the largest expected value, plus `abs`."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    allowed = rel * np.abs(expected).max(initial=0) + abs
    worst = np.abs(actual - expected).max(initial=0)
    assert worst <= allowed, f"difference {worst:.3g} > {allowed:.3g}"
