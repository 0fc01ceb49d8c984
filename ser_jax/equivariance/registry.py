"""Regularizers by name."""

from ser_jax.equivariance.augself import AugSelf
from ser_jax.equivariance.base import NoRegularizer
from ser_jax.equivariance.equimod import EquiMod
from ser_jax.equivariance.essl import ESSL
from ser_jax.equivariance.ser import SER
from ser_jax.equivariance.stl import STL

REGULARIZERS = {
    "none": NoRegularizer,
    "ser": SER,
    "equimod": EquiMod,
    "augself": AugSelf,
    "essl": ESSL,
    "stl": STL,
}
