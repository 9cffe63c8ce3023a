"""Helpers that any layer may use: writing files, progress bars, checks of numbers and paths, processes, docstrings."""
