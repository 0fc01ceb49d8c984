"""Data sources, loading and augmentation."""
