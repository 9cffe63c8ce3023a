"""Training: the loop, checkpoints, optimizers."""
