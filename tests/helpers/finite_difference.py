"""Gradients of slow references written as loops."""

from collections.abc import Callable

import numpy as np


def gradients(fun: Callable, *args: np.ndarray, step: float = 1e-5) -> list[np.ndarray]:
    """Central differences of a scalar function of float64 arrays."""
    args = [np.array(x, np.float64) for x in args]
    grads = [np.zeros_like(x) for x in args]
    for x, grad in zip(args, grads, strict=True):
        for i in np.ndindex(*x.shape):
            value = x[i]
            x[i] = value + step
            up = fun(*args)
            x[i] = value - step
            grad[i] = (up - fun(*args)) / (2 * step)
            x[i] = value
    return grads
