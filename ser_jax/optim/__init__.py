"""Optimizers, schedules and parameter masks."""
