"""Soft equivariance regularization: tokens move with the picture.

Two views of one picture differ by a known group element. View 1's tokens should be view
0's, moved; s is the cosine over the temperature, i and m are images, j and n slots:

    L_01 = mean_ij  -log( e^s(q_ij, k_ij) / (e^s(q_ij, k_ij) + N_ij) )

    N_ij = sum_{m != i, n}  e^s(q_ij, k_mn) + e^s(q_ij, o_mn)

    q = projector(student grid of view 1)           `queries`
    k = rho_g(projector(target grid of view 0))     `aligned`, by `act_on_grid`
    o = projector(target grid of view 1)            `same_view`, if negatives = "both"
    g = g_1 after the inverse of g_0                `relative`

    loss_equiv = mean of L_01 and L_10 over layers, mean or sum over pairs of views
    loss = loss_inv + weight * loss_equiv           `Learner.loss`
    loss_inv = L_inv(b1 and b2), or L_inv(b1) + L_inv(b2) if invariance = "split"

A grid is that after `layer` blocks, through a norm of its own; without a target network
the student's stands for the target's. Means and sums are over slots that hold tokens; k
and o are constants unless `equiv_grad` says otherwise, and have the encoder's compute
dtype. `against_all` has L_01.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from ser_jax.geometry.action import KERNELS
from ser_jax.geometry.group import Group
from ser_jax.methods.losses.patch_ntxent import against_all
from ser_jax.methods.metric import Metric, Metrics
from ser_jax.methods.regularizers.ser_directions import Direction, directions
from ser_jax.methods.settings import check_settings
from ser_jax.models.heads import TokenProjector
from ser_jax.models.outputs import EncoderOutput, TokenGrid
from ser_jax.views.view import View, ViewSpec

Grids = dict[int, dict[str, TokenGrid]]  # layer -> view name -> grid


@flax.struct.dataclass
class SEROutputs:
    """Projected token grids of the geometric views.

    Attributes:
        student: Layer -> view name -> grid, gradients flowing.
        target: As `student`, from the target network if there is one.
    """

    student: Grids
    target: Grids


class SERHeads(nn.Module):
    """A token projector a layer, applied to student and target grids alike.

    Attributes:
        layers: Encoder layers whose grids are read.
        dim: Width of the projectors.
    """

    layers: tuple[int, ...]
    dim: int

    @nn.compact
    def __call__(
        self,
        student: Mapping[str, EncoderOutput],
        target: Mapping[str, EncoderOutput],
        views: Mapping[str, View],
        train: bool,
    ) -> SEROutputs:
        """Projects the grids of the geometric views.

        Args:
            student: View name -> output of the online encoder.
            target: View name -> output of the target encoder; without a target network,
                empty, and the online grids stand in.
            views: All views of the step.
            train: Unused: there is no BatchNorm.

        Returns:
            Projected grids, `[b, n, dim]` tokens each.
        """
        names = _geometric(views)
        projectors = {
            layer: TokenProjector(self.dim, name=f"projector_{layer}")
            for layer in self.layers
        }

        def project(outputs: Mapping[str, EncoderOutput]) -> Grids:
            grids: Grids = {}
            for layer, projector in projectors.items():
                read = {name: outputs[name].grids[layer] for name in names}
                grids[layer] = {
                    name: dataclasses.replace(grid, tokens=projector(grid.tokens))
                    for name, grid in read.items()
                }
            return grids

        return SEROutputs(student=project(student), target=project(target or student))


@dataclasses.dataclass(frozen=True)
class SER:
    """SER's regularizer on the token grid after block `layer`; its equation is above.

    Attributes:
        weight: Factor (lambda) on the term.
        layer: equiv_layer: read the grid after this many blocks (a ResNet: stages).
        layers: Layers to regularize instead of `layer` alone, if not empty; the term is
            their mean, each with a projector of its own.
        cls_layer: The class token joins after this many blocks: 0 is at the input, as
            most public weights have it; -1 is after `layer`, as the paper has it.
        temperature: Softmax temperature of the token-level NT-Xent.
        projector_dim: Width of the token projector.
        share: Share of the batch, b2, whose views are of one picture and differ by an
            element.
        crop: What picture. "shared": one random crop of the image, that of the first
            view, as the released code; "none": all of the image, its short side
            resized, the central square, as evaluation sees it: the paper's T without
            the random crop. Photometry and elements are the same.
        invariance: "joint": one invariance loss over the whole batch, b2's class tokens
            beside b1's, as the released code. "split": L_inv(b1) + L_inv(b2), the
            paper's, each over its own images alone. What that does to b2: an image of
            it weighs as much as |b1| / |b2| of b1's (84 at 24 of 2048); it has |b2| - 1
            negatives, and is none of b1's; BatchNorm of the heads has statistics over
            |b2|, as has Barlow Twins' cross-correlation; DINO's center, running
            statistics and logged numbers are b1's, b2 is centered by the same. b2 must
            hold as many images as these need: `Objective.fewest_images`. Rows that
            `equiv_share` leaves out of the term stay in L_inv(b2).
        colour: How b2's views are coloured: "own", each as the view that it stands in
            for; or "local", all as local views, as released with multi-crop.
        pairs: Over pairs of views the term is their "mean", or their "sum", as released
            with multi-crop: of three pairs, three times as much.
        negatives: "both": tokens of other images in both views, as the paper;
            "opposite": in the other view only, as the released code.
        equiv_grad: What learns from the term. "query": student grid and projector, the
            keys constant, as in MoCo; "both": also the projector through the keys, and
            the encoder where no target network makes them; "none": nothing, which is
            what the released code does (its gather drops the gradient).
        directions: "both"; or "forward": view 0 carried to view 1 alone, as the
            released code does for Barlow Twins.
        sampling: How elements are drawn, see `Group`.
        rotations: Whether quarter turns are drawn.
        flips: Whether flips are drawn.
        area_range: Range of the resized grid's area over the base grid's.
        aspect_range: Range of its rows / columns, drawn log-uniformly.
        kernel: How rho_g interpolates: "bicubic", "bilinear" or "nearest".

    Raises:
        ValueError: If a setting is not one of those above.

    Reference:
        SER (arXiv 2603.06693), Sec. 3. Default temperature, crop and invariance from
        the released MoCo v3 script. The paper's term is trained; the released code's
        is not.
    """

    weight: float = 1.0
    layer: int = 3
    layers: tuple[int, ...] = ()
    cls_layer: int = -1
    temperature: float = 0.5
    projector_dim: int = 512
    share: float = 0.01
    crop: str = "shared"
    invariance: str = "joint"
    colour: str = "own"
    pairs: str = "mean"
    negatives: str = "both"
    equiv_grad: str = "query"
    directions: str = "both"
    sampling: str = "independent"
    rotations: bool = True
    flips: bool = True
    area_range: tuple[float, float] = (0.7, 1.3)
    aspect_range: tuple[float, float] = (3 / 4, 4 / 3)
    kernel: str = "bicubic"

    metrics: ClassVar[tuple[Metric, ...]] = ()
    paired: ClassVar[bool] = False
    cls_layers: ClassVar[tuple[int, ...]] = ()

    def __post_init__(self):
        """Checks the settings."""
        for name, allowed in (
            ("crop", ("shared", "none")),
            ("invariance", ("joint", "split")),
            ("colour", ("own", "local")),
            ("pairs", ("mean", "sum")),
            ("negatives", ("both", "opposite")),
            ("equiv_grad", ("query", "both", "none")),
            ("directions", ("both", "forward")),
            ("kernel", tuple(KERNELS)),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name} must be one of {', '.join(map(repr, allowed))}, got "
                    f"{getattr(self, name)!r}."
                )
        if min(self.grid_layers) < 1:
            raise ValueError(
                f"layers count blocks and must be >= 1, got {self.grid_layers}."
            )
        check_settings(self, counts=("projector_dim",), positive=("temperature",))
        if self.cls_layer < -1:
            raise ValueError(
                f"cls_layer counts blocks, or is -1 for that of the term; got "
                f"{self.cls_layer}."
            )
        if not 0 < self.share <= 0.5:
            raise ValueError(f"share must be in (0, 0.5], got {self.share}.")
        self.make_group(base_side=1)  # checks the settings that it takes

    def views(self, objective: tuple[ViewSpec, ...]) -> tuple[ViewSpec, ...]:
        """Pairs of views of one picture, each with its own photometry and element.

        One pair of the global views and, with multi-crop, one of every two locals.

        Args:
            objective: The objective's views.

        Returns:
            One geometric view for each of them.

        Raises:
            ValueError: If they do not come in pairs.
        """
        if len(objective) % 2:
            raise ValueError(
                f"SER pairs views of one size; {len(objective)} views leave one over. "
                "Set objective.num_local to an even number."
            )
        return tuple(
            ViewSpec(
                f"equiv/{i}",
                spec.photometry if self.colour == "own" else "local",
                crop=self._crop(objective[i - i % 2]),
                extends=spec.name,
                geometric=True,
                small=spec.small,
                centre=self.crop == "none",
            )
            for i, spec in enumerate(objective)
        )

    def _crop(self, first: ViewSpec) -> str:
        """Name of the host's crop that a pair of views is made of."""
        if self.crop == "shared":
            return first.source
        return "whole/small" if first.small else "whole"

    @property
    def splits_invariance(self) -> bool:
        """Whether b1 and b2 have an invariance loss each."""
        return self.invariance == "split"

    @property
    def grid_layers(self) -> tuple[int, ...]:
        """The regularized layers."""
        return self.layers or (self.layer,)

    @property
    def cls_insert(self) -> int:
        """The class token joins after the regularized layer, if not elsewhere."""
        return self.layer if self.cls_layer == -1 else self.cls_layer

    def make_group(self, base_side: int) -> Group:
        """D4 x scale, or a part, on a square base grid of `base_side` tokens a side."""
        return Group(
            base_side,
            self.area_range,
            self.aspect_range,
            self.rotations,
            self.flips,
            self.sampling,
        )

    def make_heads(self) -> SERHeads:
        """The token projectors."""
        return SERHeads(self.grid_layers, self.projector_dim)

    def loss(
        self, outputs: SEROutputs, views: Mapping[str, View]
    ) -> tuple[jax.Array, Metrics]:
        """Token-level NT-Xent, averaged over valid tokens, directions, layers, pairs.

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
        names = _geometric(views)
        pairs = list(zip(names[::2], names[1::2], strict=True))
        factor = len(pairs) if self.pairs == "sum" else 1
        if self.directions == "both":
            pairs += [(second, first) for first, second in pairs]
        losses = [
            self._one_direction(direction)
            for layer in self.grid_layers
            for direction in directions(
                student[layer],
                target[layer],
                {name: views[name] for name in names},
                pairs,
                kernel=self.kernel,
                same_view=self.negatives == "both",
            )
        ]
        return factor * jnp.mean(jnp.stack(losses)), {}

    def _one_direction(self, direction: Direction) -> jax.Array:
        """Mean over the tokens of a view."""
        loss = against_all(*direction, temperature=self.temperature)
        # No row is active where the share's schedule is 0.
        return jnp.sum(loss) / jnp.maximum(jnp.sum(direction.valid), 1)


def _geometric(views: Mapping[str, View]) -> list[str]:
    """Names of the geometric views by number, pairs together."""
    names = [name for name, view in views.items() if view.element is not None]
    return sorted(names, key=lambda name: int(name.rpartition("/")[2]))
