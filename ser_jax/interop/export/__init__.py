"""Encoders as folders that other programs read."""
