"""Objectives: what makes the embedding invariant."""

from ser_jax.methods.objectives.barlow_twins import BarlowTwins
from ser_jax.methods.objectives.base import Objective
from ser_jax.methods.objectives.byol import BYOL
from ser_jax.methods.objectives.dino import DINO
from ser_jax.methods.objectives.moco_v3 import MoCoV3
from ser_jax.methods.objectives.simclr import SimCLR

OBJECTIVES: dict[str, type[Objective]] = {
    "moco_v3": MoCoV3,
    "dino": DINO,
    "barlow_twins": BarlowTwins,
    "simclr": SimCLR,
    "byol": BYOL,
}
