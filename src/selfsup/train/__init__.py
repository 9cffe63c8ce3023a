"""Training: the one loop, its plan, device and precision, checkpoints, logs and the collapse signal."""
