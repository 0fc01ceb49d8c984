"""What counts as one parameter: names, ranks, norms of single ones.

The encoder keeps the weights of all its blocks stacked along axis 0, so a leaf of the
tree may hold `depth` parameters. Rules that go by rank or norm are defined on single
parameters; they ask here.
"""

from typing import Any

import jax
import optax

from ser_jax.models.outputs import BLOCKS

# Leaves below this path hold one parameter per slice of axis 0.
STACKED = f"encoder/{BLOCKS}"


def is_below(name: str, prefix: str) -> bool:
    """Whether `name` is the path `prefix` or below it ("a/b" is below "a")."""
    return name == prefix or name.startswith(f"{prefix}/")


def parameter_name(path: Any) -> str:
    """Name like "encoder/norm/scale" of a key path from `jax.tree_util`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def is_stacked(path: Any) -> bool:
    """Whether the leaf at a key path holds one parameter per slice of axis 0."""
    return is_below(parameter_name(path), STACKED)


def parameter_rank(path: Any, leaf: Any) -> int:
    """Rank of the parameter, or of each of the parameters, in a leaf.

    Args:
        path: Key path of the leaf.
        leaf: Array, or anything with `ndim`.

    Returns:
        Rank as in a model that keeps its blocks apart: 1 for biases and norms.
    """
    return leaf.ndim - is_stacked(path)


def all_parameters(params: Any) -> Any:
    """Mask that is True everywhere."""
    return jax.tree.map(lambda _: True, params)


def only_1d(params: Any) -> Any:
    """Mask of the 1-D parameters: biases, scales and shifts of norms."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: parameter_rank(path, leaf) == 1, params
    )


def not_1d(params: Any) -> Any:
    """Mask of all parameters but the 1-D ones."""
    return jax.tree.map(lambda is_1d: not is_1d, only_1d(params))


def each_parameter(rule: optax.GradientTransformation) -> optax.GradientTransformation:
    """Applies a rule without state to every parameter on its own.

    Args:
        rule: Transformation without state, written for one parameter.

    Returns:
        Transformation of whole trees in which each slice of a stacked leaf is a
        parameter. It must be given `params`.
    """

    def one(update, param):
        return rule.update(update, rule.init(param), param)[0]

    def leaf(path, update, param):
        return (jax.vmap(one) if is_stacked(path) else one)(update, param)

    return optax.stateless(
        lambda updates, params: jax.tree_util.tree_map_with_path(leaf, updates, params)
    )
