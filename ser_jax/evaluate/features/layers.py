"""The token grids of every layer of a trained encoder."""

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from ser_jax.models.outputs import Encoder, EncoderOutput


@flax.struct.dataclass
class LayerEncoder:
    """A frozen encoder whose output holds the grid of every layer.

    A pytree, so that jitted functions take it as an argument.

    Attributes:
        variables: Its variables.
        encoder: The module (static).
    """

    variables: Mapping[str, Any]
    encoder: Encoder = flax.struct.field(pytree_node=False)

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers whose grids it returns: from 1, after the first block, to the last."""
        return self.encoder.grid_layers

    @property
    def patch_size(self) -> int:
        """Pixels a side of a patch."""
        return self.encoder.patch_size

    def __call__(
        self,
        images: jax.Array | np.ndarray,
        grid_shape: jax.Array | None = None,
        num_slots: int | None = None,
    ) -> EncoderOutput:
        """Encodes images, compiled once for each of their shapes.

        Args:
            images: `[b, h, w, 3]`, float, normalised.
            grid_shape: As the encoder takes it.
            num_slots: As the encoder takes it.

        Returns:
            What the encoder gives in evaluation mode.
        """
        return _apply(self.encoder, self.variables, images, grid_shape, num_slots)


def every_layer(encoder: Encoder, variables: Mapping[str, Any]) -> LayerEncoder:
    """The encoder with a read-out at every layer, see `layer_encoder`.

    Args:
        encoder: The encoder, as trained: a ViT or what is called as one.
        variables: Its variables.

    Returns:
        The encoder of every layer.
    """
    layers = tuple(range(1, encoder.depth + 1))
    every, variables = _with_grids(encoder, variables, layers)
    return LayerEncoder(variables, every)


def layer_encoder(
    encoder: Encoder, variables: Mapping[str, Any], layers: tuple[int, ...]
) -> tuple[Callable[..., EncoderOutput], dict[str, Any]]:
    """The encoder with a read-out at some layers.

    A grid that was not asked for in training has no norm of its own: it is read through
    a LayerNorm without scale and shift.

    Args:
        encoder: The encoder, as trained: a ViT or what is called as one.
        variables: Its variables.
        layers: Layers whose grids are wanted.

    Returns:
        `(variables, images, ...) -> EncoderOutput` with these grids, in evaluation
        mode, and the variables to call it with.

    Raises:
        ValueError: If the encoder has no such layer.
    """
    module, variables = _with_grids(encoder, variables, layers)
    return module.apply, variables


def _with_grids(
    encoder: Encoder, variables: Mapping[str, Any], layers: tuple[int, ...]
) -> tuple[Encoder, dict[str, Any]]:
    """Encoder and variables, complete with the norms of the grids."""
    module = encoder.clone(grid_layers=layers)
    side = encoder.image_size
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    wanted = jax.eval_shape(module.init, jax.random.key(0), image).get("params", {})
    params = dict(variables.get("params", {}))
    for name in wanted.keys() - params.keys():
        params[name] = {
            key: (jnp.ones if key == "scale" else jnp.zeros)(leaf.shape, leaf.dtype)
            for key, leaf in wanted[name].items()
        }
    return module, dict(variables) | {"params": params}


def whole_batches(images: np.ndarray, batch_size: int = 64) -> Iterator[np.ndarray]:
    """Images in batches of one size; a few may be left over, and out.

    Args:
        images: `[n, h, w, 3]`, float32.
        batch_size: Most images in a batch.

    Yields:
        `[b, h, w, 3]`, with b * ceil(n / batch_size) <= n the most there can be.
    """
    num_batches = math.ceil(len(images) / batch_size)
    b = len(images) // num_batches
    for i in range(num_batches):
        yield images[i * b : (i + 1) * b]


@functools.partial(jax.jit, static_argnums=(0, 4))
def _apply(encoder, variables, images, grid_shape, num_slots):
    return encoder.apply(variables, images, grid_shape, num_slots=num_slots)
