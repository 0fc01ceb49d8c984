"""STL: carry a transformation seen on one image over to another image.

    loss_equiv = loss_view + trans_weight * loss_trans

    loss_view  = mean_i  c(e_i, p_i) + c(p_i, e_i)
    loss_trans = mean_j  c(t_j, t_j') + c(t_j', t_j)
    c(q, k+) = 2 temperature * -log( e^s(q, k+) / sum_k e^s(q, k) ), keys constant
    s(q, k) = cos(q, k) / temperature

    e_i = projector(f_v)                            `embedded`
    p_i = projector(A(u_wv of the partner) f_w)     `predicted`, from the other view
    u_wv = trans_backbone([f_w, f_v])               code of the change from w to v
    A(u) = hypernetwork's d x d matrix, linear in u
    t_j, t_j' = trans_projector(u)                  `even_codes`, `odd_codes`

v and w are an image's two views. Images 2i and 2i + 1 are partners, cropped and
coloured alike. i runs over both views of all images of the global batch, j over both
directions of all pairs. `symmetric_info_nce` has c both ways.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from ser_jax.methods.losses.contrastive import symmetric_info_nce
from ser_jax.methods.metric import Metric, Metrics, Panel
from ser_jax.methods.regularizers.base import FeatureRegularizer, pooled
from ser_jax.methods.settings import check_settings
from ser_jax.models.heads import BatchNormMlp
from ser_jax.models.initial import uniform_kernel
from ser_jax.models.outputs import EncoderOutput
from ser_jax.views.view import View

_VIEWS = ("global/0", "global/1")

_LOSSES, _ACCURACIES = Panel("STL's losses"), Panel("STL's accuracies")
_METRICS = (
    Metric("loss_view", _LOSSES, "views"),
    Metric("loss_trans", _LOSSES, "transformations"),
    Metric("view_accuracy", _ACCURACIES, "views"),
    Metric("trans_accuracy", _ACCURACIES, "transformations"),
)


@flax.struct.dataclass
class STLOutputs:
    """Embeddings to be matched row by row.

    Attributes:
        embedded: Both views, view 0's rows first, `[2b, output_dim]`.
        predicted: Each from the other view and the pair's transformation, `[2b,
            output_dim]`.
        even_codes: Transformations of the even images, 0 to 1 first, `[b, trans_dim]`.
        odd_codes: Those of their odd partners, in the same order, `[b, trans_dim]`.
    """

    embedded: jax.Array
    predicted: jax.Array
    even_codes: jax.Array
    odd_codes: jax.Array


@jax.checkpoint
def transform(kernel: jax.Array, codes: jax.Array, x: jax.Array) -> jax.Array:
    """Each feature through the linear map that its code stands for.

    The map of code c is W(c)[o, i] = sum over t of c[t] * kernel[t, o, i]. All orders
    of contraction cost about b * t * d * d multiplications; they differ in what lies
    between. Making W first stores b * d * d numbers (1.2 GB at b = 2048, d = 384), the
    outer products of codes and features b * t * d (t = 128: a third) and leave one
    plain matrix product. The backward pass makes them again, which costs nothing beside
    it, so that none are kept.

    Args:
        kernel: `[t, d, d]`: code, output, input.
        codes: `[b, t]`.
        x: `[b, d]`.

    Returns:
        `[b, d]`.
    """
    outer = jnp.einsum("bt,bi->bti", codes, x)
    return jnp.einsum("bti,toi->bo", outer, kernel)


class Hypernetwork(nn.Module):
    """Linear layer without bias whose outputs are the weights of a linear map."""

    @nn.compact
    def __call__(self, codes: jax.Array, x: jax.Array) -> jax.Array:
        """Returns features `x` `[b, d]` mapped as their `codes` `[b, t]` say."""
        t, d = codes.shape[1], x.shape[1]
        kernel = self.param("kernel", uniform_kernel, (t, d * d))
        return transform(kernel.reshape(t, d, d), codes, x)


class STLHeads(nn.Module):
    """Transformation codes, the maps they stand for, and projectors.

    Attributes:
        layer: Encoder layer that is read.
        pool: "cls" or "mean_patch".
        hidden_dim: Hidden width of the projector.
        output_dim: Width of the embeddings.
        trans_dim: Width of transformation codes and of the layers around them.
    """

    layer: int
    pool: str
    hidden_dim: int
    output_dim: int
    trans_dim: int

    def setup(self):
        """Makes the parts."""

        def mlp(hidden_dim: int, output_dim: int) -> BatchNormMlp:
            return BatchNormMlp(hidden_dim, output_dim, 2, last_batch_norm=False)

        self.trans_backbone = mlp(self.trans_dim, self.trans_dim)
        self.hypernetwork = Hypernetwork()
        self.projector = mlp(self.hidden_dim, self.output_dim)
        self.trans_projector = mlp(self.trans_dim, self.trans_dim)

    def __call__(
        self,
        student: Mapping[str, EncoderOutput],
        target: Mapping[str, EncoderOutput],
        views: Mapping[str, View],
        train: bool,
    ) -> STLOutputs:
        """Predicts each view from the other by the partner's transformation.

        Args:
            student: View name -> output of the online encoder; images 2i and 2i + 1
                were augmented alike.
            target: Unused.
            views: Unused.
            train: Whether BatchNorm uses the batch's statistics.

        Returns:
            Embeddings, predictions and codes.

        Raises:
            ValueError: If the batch size is odd.
        """
        first, second = (
            pooled(student[name], self.layer, self.pool) for name in _VIEWS
        )
        if first.shape[0] % 2:
            raise ValueError(
                "STL pairs images 2i and 2i + 1 of a batch: batch_size must be even, "
                f"got {first.shape[0]}."
            )
        # Every call of a part sees one view: BatchNorm's statistics are per call.
        forth, back = (
            self.trans_backbone(jnp.concatenate(pair, axis=1), train=train)
            for pair in ([first, second], [second, first])
        )  # [b, trans_dim] each
        maps = (
            (_swap_partners(back), second),  # predicts view 0
            (_swap_partners(forth), first),  # predicts view 1
        )
        predicted = [self.hypernetwork(codes, x) for codes, x in maps]

        def project(features):
            return jnp.concatenate([self.projector(x, train=train) for x in features])

        def project_codes(start):
            codes = jnp.concatenate([forth[start::2], back[start::2]])  # [b, trans_dim]
            return self.trans_projector(codes, train=train)

        return STLOutputs(
            embedded=project([first, second]),
            predicted=project(predicted),
            even_codes=project_codes(0),
            odd_codes=project_codes(1),
        )


def _swap_partners(codes: jax.Array) -> jax.Array:
    """Rows 2i and 2i + 1 of `[b, t]` exchanged."""
    pairs = codes.reshape(-1, 2, codes.shape[1])  # [b / 2, 2, t]
    return pairs[:, ::-1].reshape(codes.shape)  # [b, t]


@dataclasses.dataclass(frozen=True)
class STL(FeatureRegularizer):
    """Self-supervised transformation learning.

    The two views' features give a code of the transformation between them, a
    hypernetwork makes the code a linear map of features. Two images that were augmented
    alike lend each other their maps: the code may tell the transformation, not the
    image.

    Attributes:
        weight: Factor (lambda) on the term.
        layer: See `FeatureRegularizer`.
        pool: See `FeatureRegularizer`.
        temperature: Softmax temperature.
        hidden_dim: Hidden width of the projector.
        output_dim: Width of the embeddings.
        trans_dim: Width of transformation codes. The hypernetwork has trans_dim * d * d
            weights.
        trans_weight: Factor on the agreement of partners' codes, inside the term:
            published weights of equivariance and transformation are 1 and 0.1.

    Raises:
        ValueError: If a setting is out of its range.

    Reference:
        Yu et al., Self-supervised transformation learning for equivariant
        representations (arXiv 2501.08712), with MoCo v3's contrastive loss in place of
        NT-Xent, as SER's authors released it. Augmentation is the base's own, so that
        the add-on is all that differs; theirs is `augment.recipe="stl"`: crops of 20 to
        100 %, both views blurred with probability .5, none solarized.
    """

    temperature: float = 0.2
    hidden_dim: int = 512
    output_dim: int = 128
    trans_dim: int = 128
    trans_weight: float = 0.1

    paired: ClassVar[bool] = True

    metrics: ClassVar[tuple[Metric, ...]] = _METRICS

    def __post_init__(self):
        """Checks the settings."""
        super().__post_init__()
        check_settings(
            self,
            counts=("hidden_dim", "output_dim", "trans_dim"),
            non_negative=("trans_weight",),
            positive=("temperature",),
        )

    def make_heads(self) -> STLHeads:
        """Codes, hypernetwork, projectors."""
        return STLHeads(
            layer=self.layer,
            pool=self.pool,
            hidden_dim=self.hidden_dim,
            output_dim=self.output_dim,
            trans_dim=self.trans_dim,
        )

    def loss(
        self, outputs: STLOutputs, views: Mapping[str, View]
    ) -> tuple[jax.Array, Metrics]:
        """Contrastive loss of predictions, and of partners' codes.

        Args:
            outputs: What the heads returned.
            views: Unused.

        Returns:
            loss_view + trans_weight * loss_trans, `[]`, float32; both parts as metrics,
            and for each the share of rows whose counterpart is the closest.
        """
        del views
        view, view_correct = symmetric_info_nce(
            outputs.embedded, outputs.predicted, temperature=self.temperature
        )
        trans, trans_correct = symmetric_info_nce(
            outputs.even_codes, outputs.odd_codes, temperature=self.temperature
        )
        loss_view, loss_trans = view.mean(), trans.mean()
        metrics = {
            "loss_view": loss_view,
            "loss_trans": loss_trans,
            "view_accuracy": view_correct.mean(),
            "trans_accuracy": trans_correct.mean(),
        }
        return loss_view + self.trans_weight * loss_trans, metrics
