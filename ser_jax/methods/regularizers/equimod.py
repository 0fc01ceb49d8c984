"""EquiMod: predict an augmented view's embedding from the plain image's.

    loss_equiv = mean_i (l(y_i, p_i) + l(p_i, y_i)) / 2

    l(z, z+) = -log( e^s(z, z+) / sum_{z' != z} e^s(z, z') )    negatives = "all"
             = 2 temperature * -log( e^s(z, z+) / sum_k e^s(z, k) )    "cross"
    s(z, z') = cos(z, z') / temperature

    y_i = projector(feature of view v of an image)             `views`
    y_0 = projector(feature of the plain image)                `plain`
    p_i = predictor([y_0, g_t(t_i)])                           `predicted`
    t_i = the view's augmentation as a vector, standardised    `Standardizer`

i runs over both augmented views of all images of the global batch; z' over all y and p
but z, k over all of the other kind, as constants. `nt_xent` has the first l,
`symmetric_info_nce` the second.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from ser_jax.methods.losses.contrastive import nt_xent, symmetric_info_nce
from ser_jax.methods.metric import Metric, Metrics, Panel
from ser_jax.methods.regularizers.augment_params import (
    OFFICIAL_STANDARDIZATIONS,
    augmentation_vector,
)
from ser_jax.methods.regularizers.base import FeatureRegularizer, pooled
from ser_jax.methods.settings import check_settings
from ser_jax.models.heads import BatchNormMlp, batch_norm
from ser_jax.models.initial import uniform_dense
from ser_jax.models.normalize import l2_normalize
from ser_jax.models.outputs import EncoderOutput
from ser_jax.views.view import View, ViewSpec, interleave

_VIEWS = ("global/0", "global/1")
_PLAIN = "plain"

_NORMS = Panel("norms of EquiMod's embeddings")
_SPREAD = Panel("deviation of EquiMod's norms")
_NORM_OF = {"views": "views", "predicted": "predictions", "plain": "plain images"}
_METRICS = (
    Metric("equimod_accuracy", Panel("accuracy of EquiMod's predictions"), "closest"),
    Metric("equimod_gain", Panel("EquiMod's gain over the plain image"), "cosine"),
    Metric("equimod_ratio", Panel("EquiMod's ratio to the plain image"), "distance"),
    *(Metric(f"{n}_norm_mean", _NORMS, label) for n, label in _NORM_OF.items()),
    *(Metric(f"{n}_norm_std", _SPREAD, label) for n, label in _NORM_OF.items()),
)


@flax.struct.dataclass
class EquiModOutputs:
    """Embeddings of the augmented views and what the plain image predicts of them.

    Attributes:
        views: y_1 and y_2, view 0's rows first, `[2b, d]`.
        predicted: Their predictions, in the same order, `[2b, d]`.
        plain: y_0, the un-augmented images, `[b, d]`.
    """

    views: jax.Array
    predicted: jax.Array
    plain: jax.Array


class Standardizer(nn.Module):
    """Augmentation vectors with each element brought to about mean 0, deviation 1.

    Attributes:
        kind: See `EquiMod.standardize`.
    """

    kind: str

    @nn.compact
    def __call__(self, views: Mapping[str, View], train: bool) -> jax.Array:
        """Returns `[2b, p]` from the parameters of both augmented views, 0 first."""
        official = OFFICIAL_STANDARDIZATIONS.get(self.kind)
        vectors = [
            augmentation_vector(views[name].params, crop_in_px=official is not None)
            for name in _VIEWS
        ]
        vector = jnp.concatenate(vectors)  # [2b, 18]
        if official is not None:
            return official(vector)
        # An element that never varies becomes 0.
        return batch_norm(train=train, affine=False, name="bn")(vector)


class ParamsEmbedding(nn.Module):
    """Linear layer without bias and BatchNorm: g_t.

    Attributes:
        dim: Width of the embedding.
    """

    dim: int

    @nn.compact
    def __call__(self, vector: jax.Array, train: bool) -> jax.Array:
        """Returns `[2b, dim]` from standardised vectors `[2b, p]`."""
        p = vector.shape[-1]
        x = uniform_dense(p, self.dim, use_bias=False, name="fc")(vector)
        return batch_norm(train=train, affine=True, name="bn")(x)


class EquiModHeads(nn.Module):
    """Projector of features, embedding of parameters, predictor of the two.

    Attributes:
        layer: Encoder layer that is read.
        pool: "cls" or "mean_patch".
        hidden_dim: Hidden width of the projector.
        output_dim: Width of the embeddings.
        standardize: See `EquiMod`.
        joint_batch_norm: See `EquiMod`.
    """

    layer: int
    pool: str
    hidden_dim: int
    output_dim: int
    standardize: str
    joint_batch_norm: bool

    def setup(self):
        """Makes the parts."""
        self.standardizer = Standardizer(self.standardize)
        self.projector = BatchNormMlp(self.hidden_dim, self.output_dim, 3)
        self.params_embedding = ParamsEmbedding(self.output_dim)
        self.predictor = BatchNormMlp(self.hidden_dim, self.output_dim, 1)  # one layer

    def __call__(
        self,
        student: Mapping[str, EncoderOutput],
        target: Mapping[str, EncoderOutput],
        views: Mapping[str, View],
        train: bool,
    ) -> EquiModOutputs:
        """Embeds the views, and predicts them from the plain image.

        Args:
            student: View name -> output of the online encoder.
            target: Unused.
            views: View name -> how it was made.
            train: Whether BatchNorm uses the batch's statistics.

        Returns:
            Embeddings and predictions.
        """
        features = [
            pooled(student[name], self.layer, self.pool) for name in (*_VIEWS, _PLAIN)
        ]
        return self.predict(features, self.standardizer(views, train), train)

    def predict(
        self, features: list[jax.Array], vector: jax.Array, train: bool
    ) -> EquiModOutputs:
        """Embeds and predicts from features.

        Args:
            features: View 0, view 1, plain image; each `[b, d]`.
            vector: Standardised parameters, view 0's rows first, `[2b, p]`.
            train: Whether BatchNorm uses the batch's statistics.

        Returns:
            Embeddings and predictions.
        """
        if self.joint_batch_norm:
            together = self.projector(interleave(features), train=train)
            first, second, plain = (together[i::3] for i in range(3))
        else:
            first, second, plain = (self.projector(x, train=train) for x in features)
        told = self.params_embedding(vector, train)  # [2b, output_dim]
        known = jnp.concatenate([jnp.concatenate([plain, plain]), told], axis=1)
        return EquiModOutputs(
            views=jnp.concatenate([first, second]),
            predicted=self.predictor(known, train=train),
            plain=plain,
        )


@dataclasses.dataclass(frozen=True)
class EquiMod(FeatureRegularizer):
    """EquiMod's equivariance module.

    From the embedding of the un-augmented image and the parameters of an augmentation
    a predictor gives the embedding of the augmented view; a contrastive loss compares
    the two. The third view it needs is the central crop, without colour.

    Attributes:
        weight: Factor (lambda) on the term.
        layer: See `FeatureRegularizer`.
        pool: See `FeatureRegularizer`.
        temperature: Softmax temperature.
        hidden_dim: Hidden width of the projector. (SER's port to ViT: that of the
            features, 384.)
        output_dim: Width of the embeddings.
        negatives: "all": NT-Xent among all embeddings and predictions of the batch,
            gradients everywhere, as published. "cross": as in SER's port to MoCo v3, an
            embedding against all predictions and the other way round, each with its
            counterparts held constant.
        standardize: How the augmentation's parameters are brought to one scale.
            "batch": by the batch's own mean and deviation, whatever the recipe.
            "official_imagenet_byol" and "official_cifar10_byol" (18 parameters),
            "official_imagenet_simclr" (17, no solarization), "official_cifar10" (15, no
            blur either: SimCLR's): the authors' constants, which belong to those
            recipes and to crops told in pixels.
        joint_batch_norm: Whether the projector's BatchNorm sees the three views
            together, as published, or each by itself, as in SER's port.

    Raises:
        ValueError: If a setting is not one of those above.

    Reference:
        Devillers and Lefort, EquiMod (arXiv 2211.01244), Sec. 3. Its constants
        for parameters are an option because they fit four recipes only.
    """

    temperature: float = 0.2
    hidden_dim: int = 2048
    output_dim: int = 128
    negatives: str = "all"
    standardize: str = "batch"
    joint_batch_norm: bool = True

    metrics: ClassVar[tuple[Metric, ...]] = _METRICS

    def __post_init__(self):
        """Checks the settings."""
        super().__post_init__()
        if self.negatives not in ("all", "cross"):
            raise ValueError(
                f"negatives must be 'all' or 'cross', got {self.negatives!r}."
            )
        kinds = ("batch", *OFFICIAL_STANDARDIZATIONS)
        if self.standardize not in kinds:
            raise ValueError(
                f"standardize must be one of {', '.join(kinds)}; got "
                f"{self.standardize!r}."
            )
        check_settings(
            self, counts=("hidden_dim", "output_dim"), positive=("temperature",)
        )

    def views(self, objective: tuple[ViewSpec, ...]) -> tuple[ViewSpec, ...]:
        """The un-augmented image beside the objective's views."""
        return (ViewSpec(_PLAIN, "plain", centre=True),)

    def make_heads(self) -> EquiModHeads:
        """Projector, parameter embedding, predictor."""
        return EquiModHeads(
            layer=self.layer,
            pool=self.pool,
            hidden_dim=self.hidden_dim,
            output_dim=self.output_dim,
            standardize=self.standardize,
            joint_batch_norm=self.joint_batch_norm,
        )

    def loss(
        self, outputs: EquiModOutputs, views: Mapping[str, View]
    ) -> tuple[jax.Array, Metrics]:
        """Contrastive loss between embeddings and predictions.

        Args:
            outputs: What the heads returned.
            views: Unused.

        Returns:
            Loss `[]`, float32; metrics of `equivariance_measures`, and how often the
            counterpart is the closest (equimod_accuracy).
        """
        del views
        pair = (outputs.views, outputs.predicted)
        if self.negatives == "all":
            loss, correct = nt_xent(*pair, temperature=self.temperature)
        else:
            both, correct = symmetric_info_nce(*pair, temperature=self.temperature)
            loss = both / 2  # released as the mean of both ways
        accuracy = {"equimod_accuracy": correct.mean()}
        return loss.mean(), accuracy | equivariance_measures(outputs)


def equivariance_measures(outputs: EquiModOutputs) -> Metrics:
    """How much the predictor makes of the parameters it is told.

    Args:
        outputs: What the heads returned.

    Returns:
        equimod_gain: mean cos(view, prediction) - cos(view, plain): > 0 if the
        prediction is closer to the view than the plain image is. equimod_ratio: mean
        (1 - cos(view, plain)) / (1 - cos(view, prediction)). And mean and deviation of
        the norms of views, predictions and plain embeddings.

    Reference:
        EquiMod (arXiv 2211.01244), absolute and relative equivariance measures.
    """
    plain = jnp.concatenate([outputs.plain, outputs.plain])  # [2b, d]
    view = l2_normalize(outputs.views)
    to_predicted = jnp.sum(view * l2_normalize(outputs.predicted), axis=1)  # [2b]
    to_plain = jnp.sum(view * l2_normalize(plain), axis=1)
    metrics = {
        "equimod_gain": jnp.mean(to_predicted - to_plain),
        # A prediction exact to the last bit would divide by 0.
        "equimod_ratio": jnp.mean((1 - to_plain) / jnp.maximum(1 - to_predicted, 1e-6)),
    }
    for name in _NORM_OF:
        norms = jnp.linalg.norm(getattr(outputs, name), axis=1)
        metrics[f"{name}_norm_mean"] = norms.mean()
        metrics[f"{name}_norm_std"] = norms.std()
    return metrics
