"""Projection and prediction heads."""

import flax.linen as nn
import jax
import jax.numpy as jnp


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
    """Linear layers without bias, BatchNorm and ReLU between; last BatchNorm plain.

    Attributes:
        hidden_dim: Width of the hidden layers.
        output_dim: Width of the output.
        num_layers: Number of linear layers.

    Reference:
        MoCo v3 (arXiv 2104.02057), Sec. 3 and released `_build_mlp`: projector with 3
        layers, predictor with 2, both ending in a BatchNorm without scale and shift.
    """

    hidden_dim: int
    output_dim: int
    num_layers: int

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
            x = nn.Dense(self.hidden_dim, use_bias=False, name=f"fc{i}")(x)
            x = nn.relu(batch_norm(train=train, affine=True, name=f"bn{i}")(x))
        last = self.num_layers
        x = nn.Dense(self.output_dim, use_bias=False, name=f"fc{last}")(x)
        return batch_norm(train=train, affine=False, name=f"bn{last}")(x)


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
        x = nn.Dense(self.dim, use_bias=False, name="fc1")(tokens)
        return nn.Dense(self.dim, use_bias=False, name="fc2")(
            nn.gelu(x, approximate=False)
        )
