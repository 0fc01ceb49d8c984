"""An encoder whose weights stay as they are, wherever they come from."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ser_jax.data.crops import eval_resize_px
from ser_jax.data.host_transforms import CentreCrop
from ser_jax.models.outputs import Encoder
from ser_jax.train.finite import not_finite
from ser_jax.train.precision import in_32_bits
from ser_jax.train.sharding import batch_sharded, make_mesh, replicated

_MOST_IMAGES = 256  # encoded at a time


@dataclasses.dataclass(frozen=True, eq=False)
class FrozenEncoder:
    """What is evaluated: a module, its weights, and how images are normalised.

    A run gives one (`load`, `open_run`); so can weights from elsewhere.

    Attributes:
        module: The encoder.
        variables: Its variables: {"params"}, and "batch_stats" if it has any.
        mean: Channel means of normalised images.
        std: Channel standard deviations.
        digest: A number that tells these weights from others: features that are kept on
            disk belong to it.

    Raises:
        FloatingPointError: If a weight is not finite.
    """

    module: Encoder
    variables: Mapping[str, Any]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    digest: int

    def __post_init__(self):
        """Checks the weights."""
        check_weights(self.variables)

    @property
    def image_size(self) -> int:
        """Pixels a side of the images that it is given."""
        return self.module.image_size

    @property
    def transform(self) -> CentreCrop:
        """From a record to the image that is encoded."""
        return CentreCrop(self.image_size, eval_resize_px(self.image_size))

    @functools.cached_property
    def local_variables(self) -> dict[str, Any]:
        """The variables on one device of this process, for work it does by itself."""
        return jax.device_put(jax.device_get(self.variables), jax.local_devices()[0])

    def normalize(self, images: jax.Array | np.ndarray) -> jax.Array:
        """Images `[b, h, w, 3]`, uint8, as the module takes them: float32."""
        mean, std = (
            jnp.asarray(x, jnp.float32).reshape(1, 1, 1, 3)
            for x in (self.mean, self.std)
        )
        return (jnp.asarray(images).astype(jnp.float32) / 255 - mean) / std

    @in_32_bits
    def __call__(self, images: np.ndarray | jax.Array) -> np.ndarray:
        """Class tokens of images, computed on all devices.

        Args:
            images: RGB, `[b, h, w, 3]`, uint8; b, h and w are any. Images that are not
                of the encoder's size are resized and cropped as in evaluation: see
                `transform`.

        Returns:
            `[b, d]`, float32: of a ResNet, the mean of its last map.

        Raises:
            ValueError: If the images are of another shape or type.
        """
        _check_images(images)
        rows = np.asarray(images)
        if rows.shape[1:3] != (self.image_size,) * 2:
            shape = (0, self.image_size, self.image_size, 3)
            cropped = [self.transform.crop(image) for image in rows]
            rows = np.stack(cropped) if cropped else np.zeros(shape, np.uint8)
        starts = range(0, max(1, len(rows)), _MOST_IMAGES)
        parts = [self._class_tokens(rows[i : i + _MOST_IMAGES]) for i in starts]
        return np.concatenate(parts)

    def _class_tokens(self, images: np.ndarray) -> np.ndarray:
        """Of at most `_MOST_IMAGES`, compiled once for each power of two of them."""
        mesh, embed, variables = self._compiled
        size = 1 << max(0, len(images) - 1).bit_length()
        size = -(-size // mesh.size) * mesh.size
        padded = np.pad(images, [(0, size - len(images)), (0, 0), (0, 0), (0, 0)])
        rows = jax.device_put(padded, batch_sharded(mesh))
        return jax.device_get(embed(variables, rows))[: len(images)]

    @functools.cached_property
    def _compiled(self) -> Any:
        """The mesh, `(variables, images) -> class tokens`, the variables on it."""
        mesh = make_mesh()

        def embed(variables, images):
            return self.module.apply(variables, self.normalize(images)).cls

        variables = jax.device_put(self.variables, replicated(mesh))
        return mesh, jax.jit(embed, out_shardings=replicated(mesh)), variables


def check_weights(variables: Any) -> None:
    """Refuses weights that nothing can be measured on.

    Args:
        variables: Arrays.

    Raises:
        FloatingPointError: If a number in them is not finite.
    """
    if bad := not_finite(variables):
        raise FloatingPointError(
            f"the weights are not to be evaluated: {bad}; training had diverged."
        )


def _check_images(images: Any) -> None:
    """Refuses what is no batch of images, with what to do."""
    shape, dtype = np.shape(images), getattr(images, "dtype", type(images).__name__)
    advice = ""
    if len(shape) == 3 and shape[-1] == 3:
        advice = "give one image as a batch: images[None]."
    elif len(shape) == 4 and shape[1] == 3 != shape[3]:
        advice = "put channels last: images.transpose(0, 2, 3, 1)."
    elif len(shape) == 4 and shape[3] == 1:
        advice = "repeat grey over the channels: np.repeat(images, 3, axis=-1)."
    elif len(shape) != 4 or shape[3] != 3:
        advice = "stack RGB images of one size along the first axis."
    elif 0 in shape[1:3]:
        advice = "give images of at least one pixel."
    elif dtype != np.uint8:
        advice = (
            "give pixels as decoded, 0 to 255; they are normalised inside. From "
            "values in [0, 1]: np.rint(255 * images).astype(np.uint8)."
        )
    if advice:
        raise ValueError(
            f"images must be [b, h, w, 3], uint8; got shape {list(shape)}, {dtype}: "
            f"{advice}"
        )
