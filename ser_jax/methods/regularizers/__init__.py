"""Equivariance and its rivals."""
