"""Evaluations of a trained encoder."""
