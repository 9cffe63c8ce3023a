"""Pretext tasks on texts."""
