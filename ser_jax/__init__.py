"""Soft equivariance regularization for self-supervised vision, in JAX and Flax."""

__version__ = "0.1.0"
