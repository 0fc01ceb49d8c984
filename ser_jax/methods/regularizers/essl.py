"""E-SSL: tell by how many quarter turns a small crop was rotated.

    loss_equiv = mean over images i and turns r of  -log softmax(head(f_ir))_r

f_ir is the feature of image i's small crop, turned by r quarters counter-clockwise, r
from 0 to 3; the four are copies of one crop with one colour.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from ser_jax.methods.metric import Metric, Metrics, Panel
from ser_jax.methods.regularizers.base import FeatureRegularizer, pooled
from ser_jax.methods.settings import check_settings
from ser_jax.models.initial import uniform_dense
from ser_jax.models.outputs import EncoderOutput
from ser_jax.views.view import View, ViewSpec

_VIEWS = ("rot/0", "rot/1", "rot/2", "rot/3")

ROTATION_ACCURACY = Metric(
    "rotation_accuracy", Panel("rotation accuracy"), "rotation", is_compared=True
)


class RotationHeads(nn.Module):
    """MLP with LayerNorm from features to logits of the four rotations.

    Attributes:
        layer: Encoder layer that is read.
        pool: "cls" or "mean_patch".
        hidden_dim: Width of the hidden layers; 0: that of the features.
        bottleneck_dim: Width of the last layer before the logits.
        num_hidden_layers: See `ESSL`.
        last_relu: See `ESSL`.
    """

    layer: int
    pool: str
    hidden_dim: int
    bottleneck_dim: int
    num_hidden_layers: int
    last_relu: bool

    @nn.compact
    def __call__(
        self,
        student: Mapping[str, EncoderOutput],
        target: Mapping[str, EncoderOutput],
        views: Mapping[str, View],
        train: bool,
    ) -> jax.Array:
        """Classifies the rotated crops.

        Args:
            student: View name -> output of the online encoder.
            target: Unused.
            views: Unused.
            train: Unused: there is no BatchNorm.

        Returns:
            Logits, `[4b, 4]`; the crops turned by 0, by 1, by 2, by 3 quarters.
        """
        x = jnp.concatenate(
            [pooled(student[name], self.layer, self.pool) for name in _VIEWS]
        )  # [4b, d]
        width = self.hidden_dim or x.shape[-1]
        last = self.num_hidden_layers + 1
        for i in range(1, last):
            x = uniform_dense(x.shape[-1], width, name=f"fc{i}")(x)
            x = nn.relu(nn.LayerNorm(epsilon=1e-5, name=f"norm{i}")(x))
        x = uniform_dense(x.shape[-1], self.bottleneck_dim, name=f"fc{last}")(x)
        x = nn.LayerNorm(epsilon=1e-5, name=f"norm{last}")(x)
        x = nn.relu(x) if self.last_relu else x
        return uniform_dense(self.bottleneck_dim, len(_VIEWS), name="logits")(x)


@dataclasses.dataclass(frozen=True)
class ESSL(FeatureRegularizer):
    """E-SSL's rotation prediction.

    One more small crop, seen in all four rotations; their features must tell which.

    Attributes:
        weight: Factor (lambda) on the term. Published for SimCLR 0.4, for Barlow Twins
            8, for SimSiam 0.08.
        layer: See `FeatureRegularizer`.
        pool: See `FeatureRegularizer`.
        hidden_dim: Width of the head's hidden layers; 0: that of the features.
        bottleneck_dim: Width of its last layer before the logits. (SER's port: 256.)
        num_hidden_layers: Layers before that one: on ImageNet 2, on CIFAR-10 1.
        last_relu: Whether a ReLU follows it: in SimCLR on CIFAR-10 alone.
        crop_scale: Area range of the crop, as shares of the image.

    Raises:
        ValueError: If a width or number is negative or `bottleneck_dim` is 0.

    Reference:
        Dangovski et al., Equivariant contrastive learning (arXiv 2111.00899), Sec. 3
        and released code. Turns are counter-clockwise.
    """

    weight: float = 0.4
    hidden_dim: int = 0
    bottleneck_dim: int = 128
    num_hidden_layers: int = 2
    last_relu: bool = False
    crop_scale: tuple[float, float] = (0.05, 0.14)

    metrics: ClassVar[tuple[Metric, ...]] = (ROTATION_ACCURACY,)

    def __post_init__(self):
        """Checks the settings."""
        super().__post_init__()
        check_settings(
            self,
            counts=("bottleneck_dim",),
            non_negative=("hidden_dim", "num_hidden_layers"),
        )

    def views(self, objective: tuple[ViewSpec, ...]) -> tuple[ViewSpec, ...]:
        """One small crop and its three rotations beside the objective's views."""
        crop = ViewSpec(
            _VIEWS[0],
            "unsolarized",  # as in SER's port
            small=True,
            crop_scale=self.crop_scale,
            # Statistics of their own would tell the rotations apart.
            statistics_group="rot",
        )
        copies = (
            dataclasses.replace(crop, name=name, copy_of=crop.name, quarter_turns=turns)
            for turns, name in enumerate(_VIEWS[1:], start=1)
        )
        return (crop, *copies)

    def make_heads(self) -> RotationHeads:
        """The classifier."""
        return RotationHeads(
            self.layer,
            self.pool,
            self.hidden_dim,
            self.bottleneck_dim,
            self.num_hidden_layers,
            self.last_relu,
        )

    def loss(
        self, outputs: jax.Array, views: Mapping[str, View]
    ) -> tuple[jax.Array, Metrics]:
        """Mean cross-entropy over all rotated crops.

        Args:
            outputs: Logits, `[4b, 4]`.
            views: Unused.

        Returns:
            Loss `[]`, float32; metric rotation_accuracy.
        """
        del views
        turns = len(_VIEWS)
        labels = jnp.repeat(jnp.arange(turns), outputs.shape[0] // turns)  # [4b]
        loss = optax.softmax_cross_entropy_with_integer_labels(outputs, labels)
        accuracy = jnp.mean(jnp.argmax(outputs, axis=1) == labels)
        return loss.mean(), {ROTATION_ACCURACY.name: accuracy}
