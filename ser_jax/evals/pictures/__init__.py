"""Pictures of what a trained encoder does: arrays in, a PNG file out."""
