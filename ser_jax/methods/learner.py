"""An encoder, an objective and a regularizer, as one pure loss."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import cast

import jax
import jax.numpy as jnp
import optax

from ser_jax.data.crops import Batch
from ser_jax.methods.encode import DropPath, class_tokens, encode
from ser_jax.methods.invariance import invariance
from ser_jax.methods.objectives.base import Objective, mean_std
from ser_jax.methods.regularizers.base import Regularizer
from ser_jax.methods.variables import (
    CLS_STD,
    Features,
    LossAux,
    PyTree,
    Variables,
)
from ser_jax.models.outputs import Encoder, EncoderOutput, RowEncoder
from ser_jax.views.view import View, ViewSpec


@dataclasses.dataclass(frozen=True)
class Learner:
    """Pure functions over `Variables`; knows no optimizer, device or data set.

    Attributes:
        encoder: Linen module that maps images to `EncoderOutput`.
        objective: Invariance objective.
        regularizer: Equivariance regularizer.
        make_views: `(rng, batch, step) -> {name: View}`.
        target_momentum: EMA momentum by step; None without a target network.
        steps_per_epoch: Optimizer steps that count as an epoch.
        weight_factor: Factor on the regularizer's weight by step; None for 1.
    """

    encoder: Encoder
    objective: Objective
    regularizer: Regularizer
    make_views: Callable[[jax.Array, Batch, jax.Array], dict[str, View]]
    target_momentum: optax.Schedule | None
    steps_per_epoch: int
    weight_factor: optax.Schedule | None = None

    @property
    def specs(self) -> tuple[ViewSpec, ...]:
        """Every view of a step, the objective's first."""
        own = self.objective.views
        return (*own, *self.regularizer.views(own))

    def init(
        self,
        rng: jax.Array,
        batch: Batch,
        weights: Mapping[str, Mapping[str, PyTree]] | None = None,
    ) -> Variables:
        """Initial variables; the target starts as a copy of the online network.

        Args:
            rng: Key.
            batch: A batch, or its shapes: only shapes and dtypes are used.
            weights: Of the encoder, {"params", "batch_stats"}: what of these is there
                by name takes the place of what is drawn.

        Returns:
            Fresh variables. Call it inside `jit`: the forward passes that find the
            shapes are then never executed.
        """
        encoder_rng, objective_rng, regularizer_rng = jax.random.split(rng, 3)
        step = jnp.zeros((), jnp.int32)
        shapes = jax.eval_shape(self.make_views, rng, batch, step)
        views = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        shape = views[self.objective.views[0].name].images.shape[1:]
        encoder = self.encoder.init(encoder_rng, jnp.zeros((1, *shape)))
        for kind, there in (weights or {}).items():
            encoder[kind] = {**encoder[kind], **there}
        encoder_stats = encoder.get("batch_stats", {})
        features, _ = encode(
            self.encoder, encoder["params"], encoder_stats, views, self.specs
        )

        heads = self.objective.make_heads()
        cls = next(iter(features.values())).cls
        objective = heads.init(objective_rng, cls, True, method="student")
        params = {"encoder": encoder["params"], "objective": objective["params"]}
        if target := self.objective.target:
            if missing := set(target.heads) - set(params["objective"]):
                raise ValueError(
                    f"the objective has no heads {missing} for its target."
                )
        stats = {
            "encoder": encoder_stats,
            "objective": objective.get("batch_stats", {}),
        }
        regularizer_heads = self.regularizer.make_heads()
        if regularizer_heads is not None:
            regularizer = regularizer_heads.init(
                regularizer_rng, features, features, views, True
            )
            params["regularizer"] = regularizer["params"]
            stats["regularizer"] = regularizer.get("batch_stats", {})
        return Variables(
            params=params,
            target_params=jax.tree.map(jnp.copy, self._target_part(params)),
            batch_stats={"student": stats, "target": self._target_part(stats)},
            method_state=self.objective.init_state(),
        )

    def advance_target(
        self, when: str, target_params: PyTree, params: PyTree, step: jax.Array
    ) -> PyTree:
        """EMA weights after this moment of the step.

        Args:
            when: "before_forward" or "after_update"; nothing moves unless it is the
                moment the objective names.
            target_params: EMA weights.
            params: Online weights.
            step: Optimizer step, `[]`, int32.

        Returns:
            m * target + (1 - m) * online, float32, for the weights that have a target.
        """
        target = self.objective.target
        if target is None or target.advance != when or self.target_momentum is None:
            return target_params
        m = self.target_momentum(step)
        online = jax.lax.stop_gradient(self._target_part(params))
        return jax.tree.map(lambda t, o: m * t + (1 - m) * o, target_params, online)

    def loss(
        self,
        params: PyTree,
        variables: Variables,
        views: Mapping[str, View],
        rng: jax.Array,
        step: jax.Array,
    ) -> tuple[jax.Array, LossAux]:
        """loss_inv + equiv_weight * loss_equiv on the global batch.

        loss_inv is that of the whole batch, or, where the regularizer splits it, the
        sum of b1's and b2's, each over its own images alone: its negatives, the
        statistics of the heads' BatchNorm. The objective's state, running statistics
        and metrics are then b1's.

        Args:
            params: Trained weights: the argument to differentiate.
            variables: Target weights, statistics and method state (its params unused).
            views: All views of the step.
            rng: Key for stochastic depth.
            step: Optimizer step, `[]`, int32.

        Returns:
            Loss `[]`, float32, and what comes with it.
        """
        features = self.features(params, variables, views, self.drop_path(rng, views))
        return self.loss_of(features, params, variables, views, step)

    def drop_path(self, rng: jax.Array, views: Mapping[str, View]) -> DropPath | None:
        """Draws stochastic depth; None where the encoder has none.

        Args:
            rng: Key. An image's draw depends on it, the view that its own is or extends
                and the image's place in the batch: not on how that is cut.
            views: All views of the step; their pictures are not read.

        Returns:
            As of `encode`.
        """
        if self.encoder.has_batch_norm:
            return None
        encoder = cast(RowEncoder, self.encoder)
        found: dict[str, jax.Array] = {}
        for i, spec in enumerate(self.specs):
            if spec.extends:  # drawn with the view that it extends
                continue
            cut = views[spec.name].cut
            num = cut.batch_size if cut else views[spec.name].images.shape[0]
            drawn = encoder.drop_path_factors(jax.random.fold_in(rng, i), num)
            if drawn is None:
                return None
            names = self._names(spec.name)
            parts = cut.split(drawn) if cut else (drawn,)
            found |= zip(names, parts, strict=True)
        return found

    def features(
        self,
        params: PyTree,
        variables: Variables,
        views: Mapping[str, View],
        drop_path: DropPath | None,
    ) -> Features:
        """Features of all views; arguments as of `loss` and `encode`."""
        student, student_stats = self.encode_student(
            params["encoder"], variables, views, drop_path
        )
        # The scopes' names are those of profiles and of evals/flops_by_part.py.
        with jax.named_scope("target_encoder"):
            target, target_stats = self._encode_target(variables, views)
        return Features(student, target, student_stats, target_stats)

    def encode_student(
        self,
        encoder_params: PyTree,
        variables: Variables,
        views: Mapping[str, View],
        drop_path: DropPath | None,
    ) -> tuple[dict[str, EncoderOutput], PyTree]:
        """Student features of all views, and the encoder's new statistics.

        Arguments as of `loss`, but that the encoder's weights alone are asked for.
        """
        with jax.named_scope("student_encoder"):
            return encode(
                self.encoder,
                encoder_params,
                variables.batch_stats["student"]["encoder"],
                views,
                self.specs,
                running=[s.name for s in self.objective.views if not s.small],
                joint=self.objective.joint_batch_norm,
                drop_path=drop_path,
            )

    def loss_of(
        self,
        features: Features,
        params: PyTree,
        variables: Variables,
        views: Mapping[str, View],
        step: jax.Array,
    ) -> tuple[jax.Array, LossAux]:
        """What `loss` gives, of features that are there.

        Args:
            features: Of all views of the whole batch.
            params: Trained weights of the heads; the encoder's are not read.
            variables: As of `loss`.
            views: As of `loss`, but that their `images` are not read.
            step: As of `loss`.

        Returns:
            As `loss`.
        """
        old = variables.batch_stats
        student, target = features.student, features.target
        with jax.named_scope("objective"):
            terms = [
                invariance(
                    self.objective,
                    params["objective"],
                    variables,
                    *self._class_tokens(part, student, target, views),
                    step // self.steps_per_epoch,
                )
                for part in self._parts_of_the_batch
            ]
        whole = terms[0]  # or b1: what b2 gives beside its loss is left out
        loss_inv = sum((term.loss for term in terms[1:]), whole.loss)
        stats = {"encoder": features.student_stats, "objective": whole.student_stats}
        target_stats = {}
        if self.objective.target is not None:
            target_stats = {
                "encoder": features.target_stats,
                "objective": whole.target_stats,
            }
        outputs = None
        heads = self.regularizer.make_heads()
        with jax.named_scope("regularizer"):
            if heads is not None:
                outputs, updated = heads.apply(
                    {
                        "params": params["regularizer"],
                        "batch_stats": old["student"]["regularizer"],
                    },
                    student,
                    target,
                    views,
                    True,
                    mutable=["batch_stats"],
                )
                stats["regularizer"] = updated.get("batch_stats", {})
            loss_equiv, equiv_metrics = self.regularizer.loss(outputs, views)
        # Of the features themselves: heads that end in BatchNorm hide a collapse.
        names = self._names(self.objective.views[0].name)
        cls_std = mean_std(class_tokens(student, views, names))
        aux = LossAux(
            loss_inv=loss_inv,
            loss_equiv=loss_equiv,
            metrics=whole.metrics | equiv_metrics | {CLS_STD.name: cls_std},
            batch_stats={"student": stats, "target": target_stats},
            method_state=whole.method_state,
        )
        return loss_inv + self.equiv_weight(step) * loss_equiv, aux

    def equiv_weight(self, step: jax.Array) -> jax.Array | float:
        """Weight (lambda) of the regularizer's term at a step.

        Args:
            step: Optimizer step, `[]`, int32.

        Returns:
            The weight, `[]`.
        """
        factor = 1.0 if self.weight_factor is None else self.weight_factor(step)
        return self.regularizer.weight * factor

    def _target_part(self, tree: PyTree) -> PyTree:
        """The part of a {"encoder", "objective"} tree that has a target."""
        target = self.objective.target
        if target is None:
            return {}
        heads = {k: v for k, v in tree["objective"].items() if k in target.heads}
        part = {"objective": heads}
        if "encoder" in tree:
            part["encoder"] = tree["encoder"]
        return part

    def _encode_target(
        self, variables: Variables, views: Mapping[str, View]
    ) -> tuple[dict[str, EncoderOutput], PyTree]:
        """Target features of the views the objective names and of all geometric ones.

        In the originals the target runs in train mode too: on its batches' statistics.
        """
        target = self.objective.target
        if target is None:
            return {}, {}
        geometric = [n for n, view in views.items() if view.element is not None]
        by_name = {spec.name: spec for spec in self.specs}
        features, stats = encode(
            self.encoder,
            variables.target_params["encoder"],
            variables.batch_stats["target"]["encoder"],
            views,
            [by_name[name] for name in (*target.views, *geometric)],
            running=target.views,
            joint=self.objective.joint_batch_norm,
        )
        return jax.lax.stop_gradient(features), stats

    @property
    def _parts_of_the_batch(self) -> tuple[int | None, ...]:
        """What has an invariance loss of its own: all of it (None), or b1 and b2."""
        return (0, 1) if self.regularizer.splits_invariance else (None,)

    def _names(self, view: str) -> list[str]:
        """A view and that which extends it, if one does."""
        return [view, *(spec.name for spec in self.specs if spec.extends == view)]

    def _class_tokens(
        self,
        part: int | None,
        student: Mapping[str, EncoderOutput],
        target: Mapping[str, EncoderOutput],
        views: Mapping[str, View],
    ) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """Of the student's and the target's views, a part of the batch."""

        def of(
            features: Mapping[str, EncoderOutput], names: Iterable[str]
        ) -> dict[str, jax.Array]:
            return {
                n: class_tokens(features, views, self._names(n), part) for n in names
            }

        targets = self.objective.target.views if self.objective.target else ()
        return of(student, [s.name for s in self.objective.views]), of(target, targets)
