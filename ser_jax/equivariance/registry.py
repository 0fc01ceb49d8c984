"""Regularizers by name."""

from ser_jax.equivariance.base import NoRegularizer
from ser_jax.equivariance.ser import SER

REGULARIZERS = {"none": NoRegularizer, "ser": SER}
