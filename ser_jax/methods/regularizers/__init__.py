"""Regularizers: what makes features equivariant, SER and its rivals."""

from ser_jax.methods.regularizers.augself import AugSelf
from ser_jax.methods.regularizers.base import NoRegularizer, Regularizer
from ser_jax.methods.regularizers.equimod import EquiMod
from ser_jax.methods.regularizers.essl import ESSL
from ser_jax.methods.regularizers.ser import SER
from ser_jax.methods.regularizers.stl import STL

REGULARIZERS: dict[str, type[Regularizer]] = {
    "none": NoRegularizer,
    "ser": SER,
    "equimod": EquiMod,
    "augself": AugSelf,
    "essl": ESSL,
    "stl": STL,
}
