"""Objectives: what makes the embedding invariant."""

from ser_jax.objectives.barlow_twins import BarlowTwins
from ser_jax.objectives.byol import BYOL
from ser_jax.objectives.dino import DINO
from ser_jax.objectives.moco_v3 import MoCoV3
from ser_jax.objectives.simclr import SimCLR

OBJECTIVES = {
    "moco_v3": MoCoV3,
    "dino": DINO,
    "barlow_twins": BarlowTwins,
    "simclr": SimCLR,
    "byol": BYOL,
}
