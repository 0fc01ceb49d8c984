"""Numbers of 32 bits, in a program that otherwise computes with 64."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax

P = ParamSpec("P")
T = TypeVar("T")


def in_32_bits(function: Callable[P, T]) -> Callable[P, T]:
    """The function, run as if `JAX_ENABLE_X64` were off.

    Configs say in which type is computed, float32 or bfloat16, and checkpoints hold
    float32 and int32: under that switch constants alone would have 64 bits.

    Args:
        function: Whose JAX code is meant, in the thread that calls it.

    Returns:
        A function like it.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        with jax.enable_x64(False):
            return function(*args, **kwargs)

    return call
