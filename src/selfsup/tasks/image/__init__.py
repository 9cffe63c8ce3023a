"""Pretext tasks on images, one paper per file."""
