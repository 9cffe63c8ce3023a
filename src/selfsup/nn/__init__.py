"""Modules and functions that several tasks share."""
