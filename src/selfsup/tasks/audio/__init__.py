"""Pretext tasks on recordings."""
