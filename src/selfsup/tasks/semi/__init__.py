"""Semi-supervised tasks: few labels and much data in one loss."""
