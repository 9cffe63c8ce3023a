"""Tasks that need labels: supervised training, and semi-supervised training on few labels and much data."""
