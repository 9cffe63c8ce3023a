"""Tasks on trajectories, one file each."""
