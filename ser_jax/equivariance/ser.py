"""Soft equivariance regularization: tokens move with the picture."""

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from ser_jax.equivariance.base import Metrics
from ser_jax.equivariance.geometry import act_on_grid
from ser_jax.equivariance.group import Group, relative
from ser_jax.losses.patch_ntxent import patch_ntxent
from ser_jax.models.heads import TokenProjector
from ser_jax.models.outputs import EncoderOutput, TokenGrid
from ser_jax.views import View, ViewSpec

_VIEWS = ("equiv/0", "equiv/1")


@flax.struct.dataclass
class SEROutputs:
    """Projected token grids of the two geometric views.

    Attributes:
        student: One grid a view, gradients flowing.
        target: One grid a view, from the target network if there is one.
    """

    student: list[TokenGrid]
    target: list[TokenGrid]


class SERHeads(nn.Module):
    """The token projector, applied to student and target grids alike.

    Attributes:
        layer: Encoder layer whose grids are read.
        dim: Width of the projector.
    """

    layer: int
    dim: int

    @nn.compact
    def __call__(
        self,
        student: Mapping[str, EncoderOutput],
        target: Mapping[str, EncoderOutput],
        train: bool,
    ) -> SEROutputs:
        """Projects the grids of the geometric views.

        Args:
            student: View name -> output of the online encoder.
            target: View name -> output of the target encoder; without a target network,
                empty, and the online grids stand in.
            train: Unused: there is no BatchNorm.

        Returns:
            Projected grids, `[b, n, dim]` tokens each.
        """
        projector = TokenProjector(self.dim, name="projector")

        def project(outputs: Mapping[str, EncoderOutput]) -> list[TokenGrid]:
            grids = [outputs[name].grids[self.layer] for name in _VIEWS]
            return [
                dataclasses.replace(grid, tokens=projector(grid.tokens))
                for grid in grids
            ]

        return SEROutputs(student=project(student), target=project(target or student))


@dataclasses.dataclass(frozen=True)
class SER:
    """SER's regularizer on the token grid after block `layer`.

    View 1's tokens should be view 0's, moved by the known element between them, and the
    other way round; one direction's queries are the student's tokens in their own
    frame, its keys the target's tokens carried there by rho_g.

    Attributes:
        weight: Factor (lambda) on the term.
        layer: equiv_layer: read the grid after this many blocks; the class token joins
            there.
        temperature: Softmax temperature of the token-level NT-Xent.
        projector_dim: Width of the token projector.
        share: Share of the batch whose views share a crop and differ by an element.
        negatives: "both": tokens of other images in both views, as the paper;
            "opposite": in the other view only, as the released code.
        equiv_grad: What learns from the term. "query": student grid and projector, the
            keys constant, as in MoCo; "both": also the projector through the keys, and
            the encoder where no target network makes them; "none": nothing, which is
            what the released code does (its gather drops the gradient).
        sampling: How elements are drawn, see `Group`.
        area_range: Range of the resized grid's area over the base grid's.
        aspect_range: Range of its rows / columns, drawn log-uniformly.

    Raises:
        ValueError: If a setting is not one of those above.

    Reference:
        SER (arXiv 2603.06693), Sec. 3. Default temperature from the released MoCo v3
        script. The paper's term is trained; the released code's is not.
    """

    weight: float = 1.0
    layer: int = 3
    temperature: float = 0.5
    projector_dim: int = 512
    share: float = 0.01
    negatives: str = "both"
    equiv_grad: str = "query"
    sampling: str = "independent"
    area_range: tuple[float, float] = (0.7, 1.3)
    aspect_range: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self):
        """Checks the settings."""
        if self.negatives not in ("both", "opposite"):
            raise ValueError(
                f"negatives must be 'both' or 'opposite', got {self.negatives!r}."
            )
        if self.equiv_grad not in ("query", "both", "none"):
            raise ValueError(
                "equiv_grad must be 'query', 'both' or 'none', got "
                f"{self.equiv_grad!r}."
            )
        if self.layer < 1:
            raise ValueError(f"layer counts blocks and must be >= 1, got {self.layer}.")
        if self.temperature <= 0:
            raise ValueError(f"temperature must be > 0, got {self.temperature}.")
        if not 0 < self.share <= 0.5:
            raise ValueError(f"share must be in (0, 0.5], got {self.share}.")

    @property
    def views(self) -> tuple[ViewSpec, ...]:
        """Two views of one crop, each with its own photometry and group element."""
        return tuple(
            ViewSpec(name, crop="global/0", extends=f"global/{i}", geometric=True)
            for i, name in enumerate(_VIEWS)
        )

    @property
    def grid_layers(self) -> tuple[int, ...]:
        """The regularized layer."""
        return (self.layer,)

    @property
    def cls_layer(self) -> int:
        """The class token joins after the regularized layer."""
        return self.layer

    def make_group(self, base_side: int) -> Group:
        """D4 x scale on a square base grid of `base_side` tokens a side."""
        return Group(base_side, self.area_range, self.aspect_range, self.sampling)

    def make_heads(self) -> SERHeads:
        """The token projector."""
        return SERHeads(self.layer, self.projector_dim)

    def loss(
        self, outputs: SEROutputs, views: Mapping[str, View]
    ) -> tuple[jax.Array, Metrics]:
        """Token-level NT-Xent, averaged over valid tokens and both directions.

        Args:
            outputs: Projected grids.
            views: Views of this step; the geometric ones' elements are used.

        Returns:
            Loss `[]`, float32; no metrics of its own.
        """
        student, target = outputs.student, outputs.target
        if self.equiv_grad == "query":
            target = jax.lax.stop_gradient(target)
        elif self.equiv_grad == "none":
            student, target = jax.lax.stop_gradient((student, target))
        directions = [
            self._one_direction(student, target, views, source, 1 - source)
            for source in (0, 1)
        ]
        return jnp.mean(jnp.stack(directions)), {}

    def _one_direction(self, student, target, views, source, destination):
        """Loss of the destination's student tokens against the source's, moved."""
        source_view, destination_view = (
            views[_VIEWS[source]],
            views[_VIEWS[destination]],
        )
        aligned = act_on_grid(
            target[source].tokens,
            target[source].grid_shape,
            relative(destination_view.element, source_view.element),
            max_side=source_view.group.max_side,
        )
        same_view = {}
        if self.negatives == "both":
            same_view = {
                "same_view": target[destination].tokens,
                "same_view_valid": target[destination].valid,
            }
        valid = student[destination].valid
        loss = patch_ntxent(
            student[destination].tokens,
            aligned,
            valid,
            temperature=self.temperature,
            **same_view,
        )
        return jnp.sum(loss) / jnp.sum(valid)
