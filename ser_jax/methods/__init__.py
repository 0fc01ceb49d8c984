"""What is asked of the features? Invariance, equivariance, one loss."""
