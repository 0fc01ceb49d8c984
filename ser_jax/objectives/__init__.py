"""Objectives: what makes the embedding invariant."""
