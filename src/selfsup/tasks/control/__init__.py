"""Tasks on trajectories: what is the same from another camera, and what has changed."""
