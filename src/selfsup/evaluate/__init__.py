"""Evaluation: sees only features and labels."""
