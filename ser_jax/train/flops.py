"""FLOPs of a function, counted in its jaxpr: matrix products and convolutions.

XLA's own count (`lowered.cost_analysis()`) takes the body of a loop once, however often
it runs, and adds elementwise work, so it cannot compare two scanned training steps.
"""

import collections
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
    return flops_by_scope(fun, *args).total()


def flops_by_scope(fun: Callable[..., Any], *args: Any) -> collections.Counter[str]:
    """FLOPs of one call, by the `jax.named_scope`s they stand in.

    Args:
        fun: As for `count_flops`.
        *args: Its arguments, or their shapes.

    Returns:
        Name stack -> FLOPs: "jvp(encoder)/block" of a forward pass that is
        differentiated, "transpose(jvp(encoder))/block" of its backward pass.

    Raises:
        ValueError: As `count_flops`.
    """
    return jaxpr_flops(jax.make_jaxpr(fun)(*args))


def jaxpr_flops(
    closed: core.ClosedJaxpr, *, loops_once: bool = False
) -> collections.Counter[str]:
    """What `flops_by_scope` gives, of a function that is traced already.

    Args:
        closed: Its jaxpr.
        loops_once: Whether bodies of scans count once, as XLA counts them.

    Returns:
        Name stack -> FLOPs.

    Raises:
        ValueError: As `count_flops`.
    """
    num_outputs = len(closed.jaxpr.outvars)
    jaxpr, _ = partial_eval.dce_jaxpr(closed.jaxpr, [True] * num_outputs)
    macs = _macs(jaxpr, "", loops_once)
    return collections.Counter({scope: 2 * count for scope, count in macs.items()})


def _macs(jaxpr: core.Jaxpr, scope: str, loops_once: bool) -> collections.Counter[str]:
    macs: collections.Counter[str] = collections.Counter()
    for equation in jaxpr.eqns:
        macs.update(_equation_macs(equation, scope, loops_once))
    return macs


def _equation_macs(
    equation: core.JaxprEqn, scope: str, loops_once: bool
) -> collections.Counter[str]:
    # Names inside a body are relative to those of the equation that holds it.
    scope = "/".join(filter(None, (scope, str(equation.source_info.name_stack))))
    name = equation.primitive.name
    if name == "dot_general":
        return collections.Counter({scope: _dot_general_macs(equation)})
    if name == "conv_general_dilated":
        return collections.Counter({scope: _conv_macs(equation)})
    inner = [_macs(body, scope, loops_once) for body in _inner_jaxprs(equation)]
    if name == "cond":  # one branch runs; the dearest is an upper bound
        return max(inner, key=lambda macs: macs.total())
    turns = equation.params["length"] if name == "scan" and not loops_once else 1
    macs: collections.Counter[str] = collections.Counter()
    for body in inner:  # jit, checkpoint, custom derivatives: their body, once
        macs.update({scope: turns * count for scope, count in body.items()})
    if name == "while" and macs.total():
        raise ValueError(
            "a while loop holds a matrix product, and how often it turns is not known "
            "before it runs: write it as lax.scan, or as a lax.fori_loop with integer "
            "bounds."
        )
    return macs


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
