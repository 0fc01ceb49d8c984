"""Projection and prediction heads."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ser_jax.models.initial import uniform_dense, uniform_kernel
from ser_jax.models.normalize import l2_normalize


def batch_norm(*, train: bool, affine: bool, name: str) -> nn.BatchNorm:
    """BatchNorm over the global batch, in float32.

    Under one `jit` over a sharded batch the statistics are those of the whole batch.

    Args:
        train: Whether batch statistics are used (and running ones updated).
        affine: Whether there are a learnable scale and shift.
        name: Module name.

    Returns:
        The module, to be called on `[b, d]`.
    """
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
        dtype=jnp.float32,
        use_bias=affine,
        use_scale=affine,
        name=name,
    )


class BatchNormMlp(nn.Module):
    """Linear layers with BatchNorm and ReLU between; a plain BatchNorm at the end.

    Attributes:
        hidden_dim: Width of the hidden layers.
        output_dim: Width of the output.
        num_layers: Number of linear layers.
        hidden_bias: Whether hidden layers have a bias. The BatchNorm after them takes
            it out again; BYOL's have one.
        last_batch_norm: Whether it ends in a BatchNorm without scale and shift.
        uniform_start: Whether kernels and biases start as in PyTorch, see
            `uniform_dense`; if not, as BYOL's: normal, variance 1 / fan_in, no bias.

    Reference:
        MoCo v3 (arXiv 2104.02057), Sec. 3 and released `_build_mlp`: projector with 3
        layers, predictor with 2, both ending in a BatchNorm without scale and shift.
        The same projector serves SimCLR. Barlow Twins (arXiv 2103.03230) and BYOL
        (arXiv 2006.07733) end in the linear layer.
    """

    hidden_dim: int
    output_dim: int
    num_layers: int
    hidden_bias: bool = False
    last_batch_norm: bool = True
    uniform_start: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Embeds features.

        Args:
            x: `[b, d]`.
            train: Whether BatchNorm uses the batch's statistics.

        Returns:
            `[b, output_dim]`, float32.
        """
        for i in range(1, self.num_layers):
            x = self._linear(x, self.hidden_dim, self.hidden_bias, f"fc{i}")
            x = nn.relu(batch_norm(train=train, affine=True, name=f"bn{i}")(x))
        last = self.num_layers
        x = self._linear(x, self.output_dim, False, f"fc{last}")
        if not self.last_batch_norm:
            return x
        return batch_norm(train=train, affine=False, name=f"bn{last}")(x)

    def _linear(self, x: jax.Array, features: int, use_bias: bool, name: str):
        if self.uniform_start:
            return uniform_dense(x.shape[-1], features, use_bias=use_bias, name=name)(x)
        return nn.Dense(features, use_bias=use_bias, name=name)(x)


class DinoMlp(nn.Module):
    """Linear layers with GELU between, then unit length: DINO's bottleneck.

    Attributes:
        hidden_dim: Width of the hidden layers.
        bottleneck_dim: Width of the output.
        num_layers: Number of linear layers.
        use_batch_norm: Whether a BatchNorm stands before each GELU.

    Reference:
        DINO (arXiv 2104.14294), Sec. 3.1 and App. C.
    """

    hidden_dim: int
    bottleneck_dim: int
    num_layers: int
    use_batch_norm: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Embeds features.

        Args:
            x: `[b, d]`.
            train: Whether BatchNorm uses the batch's statistics.

        Returns:
            Unit vectors, `[b, bottleneck_dim]`, float32.
        """

        def dense(features: int, i: int) -> nn.Dense:
            # The original truncates at 100 standard deviations: a normal.
            kernel_init = nn.initializers.normal(0.02)
            return nn.Dense(features, kernel_init=kernel_init, name=f"fc{i}")

        for i in range(1, self.num_layers):
            x = dense(self.hidden_dim, i)(x)
            if self.use_batch_norm:
                x = batch_norm(train=train, affine=True, name=f"bn{i}")(x)
            x = nn.gelu(x, approximate=False)
        return l2_normalize(dense(self.bottleneck_dim, self.num_layers)(x))


class Prototypes(nn.Module):
    """Linear layer without bias whose prototypes have a direction and a gain apart.

    Attributes:
        num_prototypes: Width k of the output.
        unit_gain: Whether every gain is fixed to 1; if not, the gain is a parameter,
            `[1, k]`: a matrix, so that weight decay takes it for one, as in the
            original.

    Reference:
        DINO (arXiv 2104.14294), App. C: `norm_last_layer`.
    """

    num_prototypes: int
    unit_gain: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns logits `[b, k]`, float32, from unit vectors `[b, d]`."""
        shape = (x.shape[-1], self.num_prototypes)
        direction = self.param("direction", uniform_kernel, shape)  # [d, k]
        kernel = l2_normalize(direction.T).T
        if not self.unit_gain:
            # On the kernel, not on the logits: the backward pass keeps no [b, k] array.
            kernel *= self.param("gain", nn.initializers.ones, (1, self.num_prototypes))
        return x @ kernel


class TokenProjector(nn.Module):
    """Per-token MLP of the equivariance term: linear, GELU, linear, no biases.

    Attributes:
        dim: Width of both layers.

    Reference:
        SER (arXiv 2603.06693), released `projector_equiv` (two 1 x 1 convolutions).
    """

    dim: int

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Returns `[..., dim]` from tokens `[..., d]`."""
        width = tokens.shape[-1]
        x = uniform_dense(width, self.dim, use_bias=False, name="fc1")(tokens)
        x = nn.gelu(x, approximate=False)
        return uniform_dense(self.dim, self.dim, use_bias=False, name="fc2")(x)
