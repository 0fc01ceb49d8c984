"""Objectives: what makes the embedding invariant."""

from ser_jax.objectives.moco_v3 import MoCoV3

OBJECTIVES = {"moco_v3": MoCoV3}
