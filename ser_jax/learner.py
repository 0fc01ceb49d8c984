"""An encoder, an objective and a regularizer, as one pure loss."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from ser_jax.equivariance.base import Regularizer
from ser_jax.models.outputs import EncoderOutput
from ser_jax.objectives.base import Objective
from ser_jax.variables import LossAux, PyTree, Variables
from ser_jax.views import View

Batch = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Learner:
    """Pure functions over `Variables`; knows no optimizer, device or data set.

    Attributes:
        encoder: Linen module that maps images to `EncoderOutput`; called as `ViT` is.
        objective: Invariance objective.
        regularizer: Equivariance regularizer.
        make_views: `(rng, batch) -> {name: View}`.
        target_momentum: EMA momentum by step; None without a target network.
    """

    encoder: nn.Module
    objective: Objective
    regularizer: Regularizer
    make_views: Callable[[jax.Array, Batch], dict[str, View]]
    target_momentum: optax.Schedule | None

    def init(self, rng: jax.Array, batch: Batch) -> Variables:
        """Initial variables; the target starts as a copy of the online network.

        Args:
            rng: Key.
            batch: A batch, or its shapes: only shapes and dtypes are used.

        Returns:
            Fresh variables. Call it inside `jit`: the forward passes that find the
            shapes are then never executed.
        """
        encoder_rng, objective_rng, regularizer_rng = jax.random.split(rng, 3)
        shapes = jax.eval_shape(self.make_views, rng, batch)
        views = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        first = next(view for view in views.values() if view.element is None)
        encoder_params = self.encoder.init(encoder_rng, first.images[:1])["params"]
        features = self._encode(encoder_params, views, list(views), rng, train=False)

        heads = self.objective.make_heads()
        cls = next(iter(features.values())).cls
        objective = heads.init(objective_rng, cls, True, method="student")
        params = {"encoder": encoder_params, "objective": objective["params"]}
        if target := self.objective.target:
            if missing := set(target.heads) - set(params["objective"]):
                raise ValueError(
                    f"the objective has no heads {missing} for its target."
                )
        stats = {"objective": objective.get("batch_stats", {})}
        regularizer_heads = self.regularizer.make_heads()
        if regularizer_heads is not None:
            regularizer = regularizer_heads.init(
                regularizer_rng, features, features, True
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
        """loss_inv + weight * loss_equiv on the global batch.

        Args:
            params: Trained weights: the argument to differentiate.
            variables: Target weights, statistics and method state (its params unused).
            views: All views of the step.
            rng: Key for stochastic depth.
            step: Optimizer step, `[]`, int32.

        Returns:
            Loss `[]`, float32, and what comes with it.
        """
        student = self._encode(params["encoder"], views, list(views), rng, train=True)
        target = self._encode_target(variables.target_params, views, rng)

        queries, student_stats = self._apply_objective(
            "student",
            params["objective"],
            variables.batch_stats["student"]["objective"],
            [spec.name for spec in self.objective.views],
            student,
        )
        keys: dict[str, Any] = {}
        target_stats: PyTree = {}
        if self.objective.target is not None:
            keys, target_stats = self._apply_objective(
                "target",
                variables.target_params["objective"],
                variables.batch_stats["target"]["objective"],
                self.objective.target.views,
                target,
            )
        # The target takes no gradient: it is not what we differentiate. Said again.
        loss_inv, metrics, method_state = self.objective.loss(
            queries, jax.lax.stop_gradient(keys), variables.method_state, step
        )

        stats = {"objective": student_stats}
        outputs = None
        heads = self.regularizer.make_heads()
        if heads is not None:
            outputs, updated = heads.apply(
                {
                    "params": params["regularizer"],
                    "batch_stats": variables.batch_stats["student"]["regularizer"],
                },
                student,
                target,
                True,
                mutable=["batch_stats"],
            )
            stats["regularizer"] = updated.get("batch_stats", {})
        loss_equiv, equiv_metrics = self.regularizer.loss(outputs, views)
        target_part = {"objective": target_stats} if self.objective.target else {}
        aux = LossAux(
            loss_inv=loss_inv,
            loss_equiv=loss_equiv,
            metrics=metrics | equiv_metrics,
            batch_stats={"student": stats, "target": target_part},
            method_state=method_state,
        )
        return loss_inv + self.regularizer.weight * loss_equiv, aux

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
        self, target_params: PyTree, views: Mapping[str, View], rng: jax.Array
    ) -> dict[str, EncoderOutput]:
        """Target features of the views the objective names and of their extensions."""
        target = self.objective.target
        if target is None:
            return {}
        names = [part for name in target.views for part in self._parts(name)]
        features = self._encode(
            target_params["encoder"], views, names, rng, train=False
        )
        return jax.lax.stop_gradient(features)

    def _parts(self, name: str) -> list[str]:
        """A view and those that extend it, in the order of the batch: b1, b2."""
        specs = self.regularizer.views
        return [name, *(spec.name for spec in specs if spec.extends == name)]

    def _apply_objective(
        self,
        method: str,
        params: PyTree,
        stats: PyTree,
        names: Sequence[str],
        features: Mapping[str, EncoderOutput],
    ) -> tuple[dict[str, Any], PyTree]:
        """The objective's heads on the class tokens of each view, one view at a time.

        One at a time because BatchNorm sees a view's whole batch, b1 and b2 together,
        and nothing else, as in the originals.
        """
        heads = self.objective.make_heads()
        outputs = {}
        for name in names:
            cls = jnp.concatenate([features[part].cls for part in self._parts(name)])
            outputs[name], updated = heads.apply(
                {"params": params, "batch_stats": stats},
                cls,
                True,
                method=method,
                mutable=["batch_stats"],
            )
            stats = updated.get("batch_stats", {})
        return outputs, stats

    def _encode(
        self,
        params: PyTree,
        views: Mapping[str, View],
        names: Sequence[str],
        rng: jax.Array,
        *,
        train: bool,
    ) -> dict[str, EncoderOutput]:
        """Features of the named views; views of one size are encoded in one call."""
        calls: dict[Any, list[str]] = {}
        for name in names:
            key = (views[name].images.shape, views[name].group)
            calls.setdefault(key, []).append(name)
        features: dict[str, EncoderOutput] = {}
        for i, ((_, group), members) in enumerate(calls.items()):
            num = len(members)
            elements = [element for n in members if (element := views[n].element)]
            shapes = [element.grid_shape for element in elements]
            out = self.encoder.apply(
                {"params": params},
                _interleave([views[name].images for name in members]),
                _interleave(shapes) if shapes else None,
                num_slots=group.num_slots if group else None,
                train=train,
                rngs={"drop_path": jax.random.fold_in(rng, i)},
            )
            for j, name in enumerate(members):
                features[name] = jax.tree.map(lambda x, j=j, num=num: x[j::num], out)
        return features


def _interleave(views: Sequence[jax.Array]) -> jax.Array:
    """V arrays `[b, ...]` as one `[b * v, ...]`: image 0's views, then image 1's.

    Views side by side within an image keep a batch that is sharded by images in place.
    """
    return jnp.stack(views, axis=1).reshape(-1, *views[0].shape[1:])
