"""AugSelf: predict from two views' features how their augmentations differ.

    loss_equiv = sum over targets of  target_weight * mean_i l(p_i, d_i)

    p_i = predictor([f_v, f_w])             a predictor for each target
    d_i = target(v) - target(w)             how v and w were made, `TARGETS`
    l(p, d) = mean (tanh(p) - d)^2          crop, color, blur, solarize
            = binary cross-entropy          flip: is d = 1, both flipped or neither
            = cross-entropy                 rotation: quarter turns between the two

f_v and f_w are an image's features in its two views; i runs over (v, w) and (w, v) of
all images of the global batch. A target of weight 0 is not there.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from ser_jax.methods.metric import Metric, Metrics, Panel
from ser_jax.methods.regularizers.augself_targets import CROP_RELEASED, TARGETS, Target
from ser_jax.methods.regularizers.base import FeatureRegularizer, pooled
from ser_jax.methods.settings import check_settings
from ser_jax.models.heads import batch_norm
from ser_jax.models.initial import uniform_dense
from ser_jax.models.outputs import EncoderOutput
from ser_jax.views.view import View

_VIEWS = ("global/0", "global/1")

_LOSSES = Panel("AugSelf's losses")
_R2 = Panel("R2 of the predicted augmentations")


def _declared(name: str, target: Target) -> tuple[Metric, Metric]:
    """What is logged of a target."""
    loss, key = Metric(f"{name}_loss", _LOSSES, name), f"{name}_{target.measure}"
    if target.measure == "r2":
        return loss, Metric(key, _R2, name)
    return loss, Metric(key, Panel(f"{name} accuracy"), name, is_compared=True)


_METRICS = tuple(metric for item in TARGETS.items() for metric in _declared(*item))


class Predictor(nn.Module):
    """Three linear layers, BatchNorm and ReLU between; a bias in the last.

    Attributes:
        hidden_dim: Width of the hidden layers.
        num_outputs: Width of the output.
    """

    hidden_dim: int
    num_outputs: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Returns `[m, num_outputs]` from `[m, d]`."""
        width = self.hidden_dim
        for i in (1, 2):
            fan_in = x.shape[-1]
            x = uniform_dense(fan_in, width, use_bias=False, name=f"fc{i}")(x)
            x = nn.relu(batch_norm(train=train, affine=True, name=f"bn{i}")(x))
        return uniform_dense(width, self.num_outputs, name="fc3")(x)


class AugSelfHeads(nn.Module):
    """One predictor per target.

    Attributes:
        layer: Encoder layer that is read.
        pool: "cls" or "mean_patch".
        targets: Names of the targets.
        hidden_dim: Width of the predictors' hidden layers.
    """

    layer: int
    pool: str
    targets: tuple[str, ...]
    hidden_dim: int

    @nn.compact
    def __call__(
        self,
        student: Mapping[str, EncoderOutput],
        target: Mapping[str, EncoderOutput],
        views: Mapping[str, View],
        train: bool,
    ) -> dict[str, jax.Array]:
        """Predicts every target for the pairs (view 0, view 1) and (view 1, view 0).

        Args:
            student: View name -> output of the online encoder.
            target: Unused.
            views: Unused.
            train: Whether BatchNorm uses the batch's statistics.

        Returns:
            Target name -> predictions before tanh or softmax, `[2b, num_outputs]`.
        """
        first, second = (
            pooled(student[name], self.layer, self.pool) for name in _VIEWS
        )
        pairs = jnp.concatenate(
            [
                jnp.concatenate([first, second], axis=1),
                jnp.concatenate([second, first], axis=1),
            ]
        )  # [2b, 2d]
        return {
            name: Predictor(self.hidden_dim, TARGETS[name].num_outputs, name=name)(
                pairs, train
            )
            for name in self.targets
        }


@dataclasses.dataclass(frozen=True)
class AugSelf(FeatureRegularizer):
    """AugSelf's augmentation-aware learning.

    The term is the sum of the targets' losses, each times its weight; a target of
    weight 0 has no predictor.

    Attributes:
        weight: Factor (lambda) on the term.
        layer: See `FeatureRegularizer`.
        pool: See `FeatureRegularizer`.
        crop_weight: Weight of the crops' difference in place and size. (Published:
            0.5 for ImageNet-100, 1 for STL-10; so for color.)
        color_weight: Weight of the difference in colour jitter.
        blur_weight: Weight of the difference in blur.
        flip_weight: Weight of whether both or neither were flipped. Only with
            augment.flip_prob above 0 is there anything to tell.
        rotation_weight: Weight of the quarter turns between the views.
        solarize_weight: Weight of the difference in solarization threshold.
        hidden_dim: Width of the predictors' hidden layers.
        flip_quirk: Whether the crops' centres are both mirrored if the first view is
            flipped, as in the released code, and not each by its own flip.

    Raises:
        ValueError: If a weight is negative, or all are 0.

    Reference:
        Lee et al., Improving transferability of representations via
        augmentation-aware self-supervision (arXiv 2111.09613), Sec. 3.
    """

    crop_weight: float = 0.5
    color_weight: float = 0.5
    blur_weight: float = 0.0
    flip_weight: float = 0.0
    rotation_weight: float = 0.0
    solarize_weight: float = 0.0
    hidden_dim: int = 512
    flip_quirk: bool = False

    metrics: ClassVar[tuple[Metric, ...]] = _METRICS

    def __post_init__(self):
        """Checks the settings."""
        super().__post_init__()
        check_settings(self, counts=("hidden_dim",))
        if not self.targets or min(self.targets.values()) < 0:
            raise ValueError(
                "the targets' weights must be >= 0 and at least one of them > 0; those "
                f"that are not 0: {self.targets}."
            )

    @property
    def targets(self) -> dict[str, float]:
        """Weight of each target that is predicted."""
        weights = {name: getattr(self, f"{name}_weight") for name in TARGETS}
        return {name: weight for name, weight in weights.items() if weight}

    def make_heads(self) -> AugSelfHeads:
        """The predictors."""
        return AugSelfHeads(self.layer, self.pool, tuple(self.targets), self.hidden_dim)

    def loss(
        self, outputs: Mapping[str, jax.Array], views: Mapping[str, View]
    ) -> tuple[jax.Array, Metrics]:
        """Weighted sum of the targets' losses.

        Args:
            outputs: What the heads returned.
            views: How the two views were made.

        Returns:
            Loss `[]`, float32; for each target its loss and its r2 (1: exact, 0: as
            good as the mean) or accuracy.

        Raises:
            ValueError: If a target's augmentation occurs in neither view.
        """
        first, second = (views[name] for name in _VIEWS)
        loss = jnp.zeros(())
        metrics: Metrics = {}
        for name, weight in self.targets.items():
            target = TARGETS[name]
            if not any(target.occurs(view.recipe) for view in (first, second)):
                raise ValueError(
                    f"{name}_weight is {weight:g}, but the recipe of neither view "
                    f"gives any {name} to predict. Set {name}_weight=0 or choose a "
                    "recipe with it."
                )
            if name == "crop" and self.flip_quirk:
                target = CROP_RELEASED
            truth = jnp.concatenate(
                [target.difference(first, second), target.difference(second, first)]
            )  # [2b, num_outputs], classes [2b]
            part, score = _compare(target, outputs[name], truth)
            loss += weight * part
            metrics |= {f"{name}_loss": part, f"{name}_{target.measure}": score}
        return loss, metrics


def _compare(
    target: Target, prediction: jax.Array, truth: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Loss of one target, and how well it is met: the value of its measure."""
    if target.kind == "class":
        loss = optax.softmax_cross_entropy_with_integer_labels(prediction, truth)
        correct = jnp.argmax(prediction, axis=1) == truth
        return loss.mean(), correct.mean()
    if target.kind == "binary":
        loss = optax.sigmoid_binary_cross_entropy(prediction, truth)
        correct = (prediction > 0) == (truth > 0.5)
        return loss.mean(), correct.mean()
    squared_error = jnp.square(jnp.tanh(prediction) - truth)
    # Columns together: one that never varies has no r2 of its own. 0 if none varies.
    spread = jnp.sum(jnp.square(truth - truth.mean(axis=0, keepdims=True)))
    unexplained = jnp.sum(squared_error) / jnp.maximum(spread, 1e-9)
    r2 = jnp.where(spread > 1e-9, 1 - unexplained, 0.0)
    return squared_error.mean(), r2
