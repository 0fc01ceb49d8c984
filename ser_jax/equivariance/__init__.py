"""Regularizers and the geometry of the group they use."""
