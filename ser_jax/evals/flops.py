"""FLOPs of a function, counted in its jaxpr: matrix products and convolutions.

XLA's own count (`lowered.cost_analysis()`) takes the body of a loop once, however often
it runs, and adds elementwise work, so it cannot compare two scanned training steps.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core
from jax.interpreters import partial_eval


def count_flops(fun: Callable[..., Any], *args: Any) -> int:
    """FLOPs of one call: 2 for each multiply-add of a matrix product or convolution.

    Work whose result reaches no output is left out, as the compiler leaves it out; so
    is all elementwise work, the usual convention for model FLOPs. What `jax.checkpoint`
    recomputes counts every time it runs. Nothing is executed or compiled.

    Args:
        fun: Function of arrays; jitted or not.
        *args: Its arguments, or their shapes (`jax.ShapeDtypeStruct`).

    Returns:
        FLOPs of the whole call: under `jit` over several devices, of all of them
        together.

    Raises:
        ValueError: If a matrix product sits in a `while` loop, whose number of turns a
            jaxpr does not tell.
    """
    closed = jax.make_jaxpr(fun)(*args)
    num_outputs = len(closed.jaxpr.outvars)
    jaxpr, _ = partial_eval.dce_jaxpr(closed.jaxpr, [True] * num_outputs)
    return 2 * _macs(jaxpr)


def _macs(jaxpr: core.Jaxpr) -> int:
    return sum(_equation_macs(equation) for equation in jaxpr.eqns)


def _equation_macs(equation: core.JaxprEqn) -> int:
    name = equation.primitive.name
    if name == "dot_general":
        return _dot_general_macs(equation)
    if name == "conv_general_dilated":
        return _conv_macs(equation)
    inner = [_macs(jaxpr) for jaxpr in _inner_jaxprs(equation)]
    if name == "scan":
        return equation.params["length"] * sum(inner)
    if name == "cond":  # one branch runs; the dearest is an upper bound
        return max(inner)
    if name == "while" and any(inner):
        raise ValueError(
            "a while loop holds a matrix product, and how often it turns is not known "
            "before it runs: write it as lax.scan, or as a lax.fori_loop with integer "
            "bounds."
        )
    return sum(inner)  # jit, checkpoint, custom derivatives: their body, once


def _dot_general_macs(equation: core.JaxprEqn) -> int:
    lhs, out = _shape(equation.invars[0]), _shape(equation.outvars[0])
    (contracted, _), _ = equation.params["dimension_numbers"]
    return math.prod(out) * math.prod(lhs[axis] for axis in contracted)


def _conv_macs(equation: core.JaxprEqn) -> int:
    # Each output element: one kernel position times the input channels of its group,
    # which is the kernel without its output channels. Padding counts as work.
    kernel, out = _shape(equation.invars[1]), _shape(equation.outvars[0])
    out_channels = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
    return math.prod(out) * math.prod(kernel) // out_channels


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape


def _inner_jaxprs(equation: core.JaxprEqn) -> list[core.Jaxpr]:
    """Jaxprs among an equation's parameters: bodies, branches."""
    found = []
    for value in equation.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, core.ClosedJaxpr):
                found.append(item.jaxpr)
            elif isinstance(item, core.Jaxpr):
                found.append(item)
    return found
