"""Losses: pure functions on arrays."""
