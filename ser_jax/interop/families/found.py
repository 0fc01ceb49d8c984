"""What a file's keys and shapes say of an encoder."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

Params = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class FoundViT:
    """A ViT but for what no shape tells: heads, epsilon, when the class token joins.

    Attributes:
        width: Token width d.
        depth: Number of blocks.
        patch_size: Pixels a side of a patch.
        side: Cells a side of the position table.
        hidden: Width of the MLPs.
        params: Parameters as of `ViT`, less positions and `norm_equiv`.
        table: Positions of patches, `[side ** 2, d]`, float32.
        cls_entry: Position of the class token, `[1, 1, d]`; None: it has none.
        norm_equiv: Norm of the token grid where the class token joins; None: none.
        is_sincos: Whether the table is the fixed one of MoCo v3.
        ignored: Keys that are not the encoder's.
    """

    width: int
    depth: int
    patch_size: int
    side: int
    hidden: int
    params: Params
    table: np.ndarray
    cls_entry: np.ndarray | None
    norm_equiv: Params | None
    is_sincos: bool
    ignored: tuple[str, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class FoundResNet:
    """A ResNet but for what no shape tells: the stem's stride and padding.

    Attributes:
        stage_sizes: Blocks in each stage.
        block: "basic" or "bottleneck".
        num_filters: Channels inside the first stage's blocks.
        small_images: Whether the stem is 3 x 3.
        variables: {"params", "batch_stats"} as of `ResNet`.
        ignored: Keys that are not the encoder's.
    """

    stage_sizes: tuple[int, ...]
    block: str
    num_filters: int
    small_images: bool
    variables: Params
    ignored: tuple[str, ...]
