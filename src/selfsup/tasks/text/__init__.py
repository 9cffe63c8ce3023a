"""Pretext tasks on texts, one paper per file."""
