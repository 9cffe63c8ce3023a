"""Sounds: files, and speech that is made on demand."""

from selfsup.data.audio.sources import Sounds

__all__ = ["Sounds"]
