"""Modules and functions that several audio tasks share."""
