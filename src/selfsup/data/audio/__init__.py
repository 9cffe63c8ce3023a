"""Sounds: files, and recordings that are made on demand."""
