"""FLOPs of a MoCo v3 training step by hand, part by part, with and without SER.

The arithmetic is written out in docs/flops.md. `flops.count_flops` counts the program
itself; the two must agree.
"""

import dataclasses
from collections.abc import Mapping

from ser_jax.geometry.group import Group
from ser_jax.methods.learner import Learner
from ser_jax.methods.objectives.moco_v3 import MoCoV3
from ser_jax.methods.regularizers.base import NoRegularizer
from ser_jax.methods.regularizers.ser import SER
from ser_jax.models.vit import ViT
from ser_jax.views.view import equiv_count

_VIEWS = 2
_PAPER_GPUS = 8
_BACKWARD = 2  # one product for the input's gradient, one for the weight's


@dataclasses.dataclass(frozen=True)
class StepFlops:
    """FLOPs of one training step.

    Attributes:
        parts: Name of a part -> its FLOPs over the global batch.
    """

    parts: Mapping[str, int]

    @property
    def total(self) -> int:
        """FLOPs of the whole step."""
        return sum(self.parts.values())


def step_flops(learner: Learner, batch_size: int) -> StepFlops:
    """FLOPs of one step, from shapes alone: 2 for each multiply-add.

    Args:
        learner: A ViT under MoCo v3 without local views, with SER (one layer, both
            directions, its term trained through the queries) or no regularizer.
            Recomputation (`remat`) is not counted.
        batch_size: Global batch size.

    Returns:
        FLOPs by part.

    Raises:
        ValueError: If the learner is another one.
    """
    match learner.encoder, learner.objective, learner.regularizer:
        case (
            ViT() as vit,
            MoCoV3(num_local=0) as objective,
            (
                NoRegularizer() | SER(layers=(), directions="both", equiv_grad="query")
            ) as regularizer,
        ):
            pass
        case unknown:
            raise ValueError(
                "the hand count knows a ViT under MoCo v3 without local views, with "
                "SER (one layer, both directions, equiv_grad 'query') or no "
                f"regularizer, not {', '.join(map(str, unknown))}; count the program "
                "with count_flops."
            )
    images = _VIEWS * batch_size
    num_tokens = (vit.image_size // vit.patch_size) ** 2
    student, target = _encoder_macs(vit, num_tokens)
    macs = {
        "student encoder": images * student,
        "target encoder": images * target,
        "heads": images * _heads_macs(objective, vit.width),
        # Logits and the queries' gradient; keys are constants.
        "InfoNCE": _VIEWS * 2 * batch_size**2 * objective.output_dim,
    }
    if isinstance(regularizer, SER):
        count = equiv_count(batch_size, regularizer.share)
        if regularizer.splits_invariance:
            num_pairs = (batch_size - count) ** 2 + count**2
            macs["InfoNCE"] = _VIEWS * 2 * num_pairs * objective.output_dim
        macs |= _ser_macs(vit, regularizer, count)
    return StepFlops({part: 2 * value for part, value in macs.items()})


def paper_step_flops(learner: Learner, batch_size: int) -> StepFlops:
    """FLOPs of one SER step as the paper's program spends them, by our reconstruction.

    On 8 GPUs: images of b2 rounded on each, grids unpadded and of the base grid's size
    on average, two matrices of logits per step, the same on every GPU; class token at
    the input. docs/flops.md tells why.

    Args:
        learner: MoCo v3 on a ViT with SER, as for `step_flops`.
        batch_size: Global batch size.

    Returns:
        FLOPs by part: the base's, then SER's; against the base alone the paper's 1.008.

    Raises:
        ValueError: If the learner is another one.
    """
    match learner.encoder, learner.regularizer:
        case ViT() as vit, SER() as ser:
            pass
        case _:
            raise ValueError(
                f"the paper's step is one of a ViT with SER, not {learner}."
            )
    base = dataclasses.replace(
        learner, encoder=vit.clone(cls_insert=0), regularizer=NoRegularizer()
    )
    images = _PAPER_GPUS * round(batch_size / _PAPER_GPUS * ser.share)
    tokens = images * (vit.image_size // vit.patch_size) ** 2
    dim = ser.projector_dim
    projector = vit.width * dim + dim**2
    # Student: forward, backward twice. Teacher: forward, weights, the second's input.
    projections = 3 * projector + 2 * projector + dim**2
    logits = (1 + _BACKWARD) * tokens**2 * dim
    return StepFlops(
        {
            **step_flops(base, batch_size).parts,
            "token projector": 2 * _VIEWS * tokens * projections,
            "token logits": 2 * _VIEWS * logits * _PAPER_GPUS,
        }
    )


def _encoder_macs(vit: ViT, num_tokens: int) -> tuple[int, int]:
    """Of one image: by the student (forward and backward), by the target (forward)."""
    embed = num_tokens * 3 * vit.patch_size**2 * vit.width
    early = vit.cls_insert * _block_macs(vit, num_tokens)
    late = (vit.depth - vit.cls_insert) * _block_macs(vit, num_tokens + 1)
    # Pixels take no gradient, and a frozen embedding's weights neither.
    embed_backward = 0 if vit.freeze_patch_embed else embed
    forward = embed + early + late
    return forward + embed_backward + _BACKWARD * (early + late), forward


def _block_macs(vit: ViT, num_tokens: int) -> int:
    hidden = int(vit.mlp_ratio * vit.width)
    # q, k, v, output; the MLP's two layers; then tokens with tokens, twice
    linear = num_tokens * vit.width * (4 * vit.width + 2 * hidden)
    return linear + 2 * num_tokens**2 * vit.width


def _heads_macs(objective: MoCoV3, width: int) -> int:
    """Of one image: projector and predictor trained, the target's projector forward."""
    hidden, out = objective.hidden_dim, objective.output_dim
    projector = width * hidden + hidden**2 + hidden * out
    predictor = out * hidden + hidden * out
    return (1 + _BACKWARD) * (projector + predictor) + projector


def _ser_macs(vit: ViT, ser: SER, count: int) -> dict[str, int]:
    """What SER adds for `count` images, whose views have padded token slots."""
    group = ser.make_group(vit.image_size // vit.patch_size)
    images, slots, dim = _VIEWS * count, group.num_slots, ser.projector_dim
    padded, plain = (sum(_encoder_macs(vit, n)) for n in (slots, group.base_side**2))
    projector = vit.width * dim + dim**2
    all_slots = count * slots
    key_views = 2 if ser.negatives == "both" else 1
    return {
        "padding of b2": images * (padded - plain),
        # Student forward and backward, target forward.
        "token projector": images * slots * (1 + _BACKWARD + 1) * projector,
        # Per direction: logits, and the mean key that is the queries' gradient.
        "token logits": _VIEWS * 2 * all_slots * (key_views * all_slots) * dim,
        "resizes": images * _resize_macs(vit, group, dim),
    }


def _resize_macs(vit: ViT, group: Group, dim: int) -> int:
    """Of one view of b2: its image, its position table and its target's token grid."""
    side, most = group.base_side, group.max_side
    pixels, most_pixels = vit.image_size, most * vit.patch_size
    image = _act_macs(pixels, most_pixels, 3)
    table = _act_macs(side, most, vit.width)
    # Student forward, target forward; and backward to the table if it learns.
    passes = 3 if vit.pos_embed == "learned" else 2
    return image + passes * table + _act_macs(most, most, dim)


def _act_macs(side_in: int, side_out: int, channels: int) -> int:
    """Rows, then columns, of a square grid."""
    rows = side_out * side_in * side_in * channels
    return rows + side_out * side_out * side_in * channels
