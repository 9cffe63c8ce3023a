"""Pretext tasks on pictures."""
