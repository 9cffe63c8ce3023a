"""Simulators and recordings: the only package that knows gymnasium and pybullet."""
