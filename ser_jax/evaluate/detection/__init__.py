"""Boxes: a detector on the frozen encoder."""
