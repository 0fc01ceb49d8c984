"""DINO: the student's prototype distribution follows an EMA teacher's.

    loss = mean over (v, g) in view_pairs of  mean_i -sum_k p_ik(g) log q_ik(v)

    p(g) = softmax((target[g].logits - center) / teacher temperature)    constants
    q(v) = softmax(student[v] / student_temp)

    student[v] = prototypes(mlp(cls of v)), target[g] likewise in the target network
    center <- center_momentum center + (1 - center_momentum) mean of target logits
    target_params <- m target_params + (1 - m) params, after the update

i is an image of the global batch, k a prototype; v and g are two views of one image, g
a global one; m rises from `momentum` to 1 along a cosine. The new center counts from
the next step on. `teacher_probs` has p, `dino_cross_entropy` the sum over k.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.scipy.special import entr

from ser_jax.methods.losses.dino import (
    dino_cross_entropy,
    teacher_probs,
    teacher_temperature,
    update_center,
)
from ser_jax.methods.metric import Metric, Metrics, Panel
from ser_jax.methods.objectives.base import (
    EMBEDDING_STD,
    GLOBAL_VIEWS,
    TEACHER_ENTROPY,
    EmaTarget,
    MultiCropObjective,
    mean_std,
    view_pairs,
)
from ser_jax.methods.settings import check_settings
from ser_jax.models.heads import DinoMlp, Prototypes
from ser_jax.models.outputs import PROTOTYPES

TEACHER_KL = Metric(
    "teacher_kl_to_uniform", Panel("use of the prototypes: KL to uniform"), "teacher"
)
CENTER_NORM = Metric("center_norm", Panel("norm of the center"), "center")


@flax.struct.dataclass
class TeacherOutput:
    """What the teacher says of one view.

    Attributes:
        embedding: Unit vectors at the bottleneck, `[b, bottleneck_dim]`.
        logits: `[b, k]`.
    """

    embedding: jax.Array
    logits: jax.Array


class DINOHeads(nn.Module):
    """MLP to a bottleneck of unit length, then prototypes; student and teacher alike.

    Attributes:
        hidden_dim: Width of the MLP's hidden layers.
        bottleneck_dim: Width of the bottleneck.
        output_dim: Number of prototypes.
        num_layers: Linear layers of the MLP.
        head_batch_norm: Whether the MLP has BatchNorm.
        norm_last_layer: Whether the prototypes' gain is fixed to 1.
    """

    hidden_dim: int
    bottleneck_dim: int
    output_dim: int
    num_layers: int
    head_batch_norm: bool
    norm_last_layer: bool

    def setup(self):
        """Makes the MLP and the prototypes."""
        self.mlp = DinoMlp(
            self.hidden_dim, self.bottleneck_dim, self.num_layers, self.head_batch_norm
        )
        self.prototypes = Prototypes(self.output_dim, self.norm_last_layer)

    def student(self, cls: jax.Array, train: bool) -> jax.Array:
        """Returns logits `[b, output_dim]` from class tokens `[b, d]`."""
        return self.prototypes(self.mlp(cls, train=train))

    def target(self, cls: jax.Array, train: bool) -> TeacherOutput:
        """Returns bottleneck and logits from class tokens `[b, d]`."""
        embedding = self.mlp(cls, train=train)
        return TeacherOutput(embedding, self.prototypes(embedding))


@dataclasses.dataclass(frozen=True)
class DINO(MultiCropObjective):
    """Self-distillation without labels.

    The teacher, an EMA of the student that moves after the update, sees the global
    views; the student sees all views and learns the teacher's distribution over the
    prototypes for every other view of the image. Centering keeps one prototype from
    taking everything, sharpening (a low teacher temperature) keeps the distribution
    from becoming uniform.

    Attributes:
        student_temp: Student's softmax temperature.
        warmup_teacher_temp: Teacher's temperature in the first epoch of its warm-up.
        teacher_temp: Teacher's temperature in the last epoch of its warm-up and after.
        teacher_temp_warmup_epochs: Length of that warm-up; 0 for none.
        center_momentum: Share of the center that a step keeps.
        momentum: EMA momentum at step 0, rising to 1.
        hidden_dim: Width of the head's hidden layers.
        bottleneck_dim: Width of the head's bottleneck.
        output_dim: Number of prototypes.
        num_layers: Linear layers of the head before the prototypes.
        head_batch_norm: Whether the head has BatchNorm.
        norm_last_layer: Whether the prototypes' gain is fixed to 1 or trained.
        num_local: Local views; the student alone sees them.

    Raises:
        ValueError: If a setting is out of range.

    Reference:
        Caron et al., Emerging properties in self-supervised vision transformers
        (arXiv 2104.14294), Algorithm 1; defaults from the released code.
    """

    student_temp: float = 0.1
    warmup_teacher_temp: float = 0.04
    teacher_temp: float = 0.04
    teacher_temp_warmup_epochs: int = 0
    center_momentum: float = 0.9
    momentum: float = 0.996
    hidden_dim: int = 2048
    bottleneck_dim: int = 256
    output_dim: int = 65536
    num_layers: int = 3
    head_batch_norm: bool = False
    norm_last_layer: bool = True

    metrics: ClassVar[tuple[Metric, ...]] = (
        EMBEDDING_STD,
        TEACHER_ENTROPY,
        TEACHER_KL,
        CENTER_NORM,
    )

    def __post_init__(self):
        """Checks the settings."""
        super().__post_init__()
        check_settings(
            self,
            counts=("hidden_dim", "bottleneck_dim", "output_dim", "num_layers"),
            non_negative=("teacher_temp_warmup_epochs",),
            positive=("student_temp", "warmup_teacher_temp", "teacher_temp"),
            fractions=("center_momentum", "momentum"),
        )

    @property
    def target(self) -> EmaTarget:
        """EMA of encoder and whole head, moved after the update; what one evaluates."""
        heads = ("mlp", PROTOTYPES)
        return EmaTarget(
            self.momentum, "after_update", heads, GLOBAL_VIEWS, evaluated=True
        )

    @property
    def embedding_dim(self) -> int:
        """Width of what `embedding_std` is taken of, the bottleneck."""
        return self.bottleneck_dim

    @property
    def num_prototypes(self) -> int:
        """Prototypes that the teacher's distribution is over."""
        return self.output_dim

    @property
    def fewest_images(self) -> int:
        """One where the head has no BatchNorm: an image's loss is its own."""
        return super().fewest_images if self.head_batch_norm else 1

    def make_heads(self) -> DINOHeads:
        """MLP and prototypes."""
        return DINOHeads(
            hidden_dim=self.hidden_dim,
            bottleneck_dim=self.bottleneck_dim,
            output_dim=self.output_dim,
            num_layers=self.num_layers,
            head_batch_norm=self.head_batch_norm,
            norm_last_layer=self.norm_last_layer,
        )

    def init_state(self) -> dict[str, jax.Array]:
        """The center of the teacher's outputs, zero at first."""
        return {"center": jnp.zeros((1, self.output_dim), jnp.float32)}

    def loss(
        self,
        student: Mapping[str, jax.Array],
        target: Mapping[str, TeacherOutput],
        state: Mapping[str, jax.Array],
        epoch: jax.Array,
    ) -> tuple[jax.Array, Metrics, dict[str, jax.Array]]:
        """Mean cross-entropy over the pairs of a student view and another global view.

        Args:
            student: Logits per view, `[b, output_dim]`.
            target: Teacher's outputs per global view.
            state: "center" `[1, output_dim]`, as the step before left it.
            epoch: Whole epochs done, `[]`, int32.

        Returns:
            The loss; metrics teacher_entropy (mean over images, nats: log k if the
            teacher says nothing), teacher_kl_to_uniform (of the batch's mean teacher
            distribution, nats: log k if one prototype takes all images, 0 if all are
            used alike), center_norm and embedding_std (mean per-dimension standard
            deviation of unit embeddings: 1 / sqrt(d) is healthy, 0 collapsed); the new
            center.
        """
        temperature = teacher_temperature(
            epoch,
            start=self.warmup_teacher_temp,
            final=self.teacher_temp,
            warmup_epochs=self.teacher_temp_warmup_epochs,
        )
        probs = {
            view: teacher_probs(out.logits, state["center"], temperature)
            for view, out in target.items()
        }
        losses = [
            dino_cross_entropy(
                student[view], probs[other], temperature=self.student_temp
            ).mean()
            for view, other in view_pairs(self.num_local)
        ]
        center = update_center(
            state["center"],
            [out.logits for out in target.values()],
            momentum=self.center_momentum,
        )
        usage = jnp.mean(jnp.stack([p.mean(axis=0) for p in probs.values()]), axis=0)
        entropies = [entr(p).sum(axis=-1).mean() for p in probs.values()]
        metrics = {
            TEACHER_ENTROPY.name: jnp.mean(jnp.stack(entropies)),
            TEACHER_KL.name: math.log(self.output_dim) - entr(usage).sum(),
            CENTER_NORM.name: jnp.linalg.norm(center),
            EMBEDDING_STD.name: mean_std(target[GLOBAL_VIEWS[0]].embedding),
        }
        return jnp.mean(jnp.stack(losses)), metrics, {"center": center}
