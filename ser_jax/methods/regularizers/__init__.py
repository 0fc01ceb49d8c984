"""Regularizers: what makes features equivariant, SER and its rivals."""

from ser_jax.methods.regularizers.augself import AugSelf
from ser_jax.methods.regularizers.base import NoRegularizer
from ser_jax.methods.regularizers.equimod import EquiMod
from ser_jax.methods.regularizers.essl import ESSL
from ser_jax.methods.regularizers.ser import SER
from ser_jax.methods.regularizers.stl import STL

REGULARIZERS = {
    "none": NoRegularizer,
    "ser": SER,
    "equimod": EquiMod,
    "augself": AugSelf,
    "essl": ESSL,
    "stl": STL,
}
