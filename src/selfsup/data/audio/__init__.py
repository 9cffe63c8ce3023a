"""Sounds: files, generated ones, and speech that is made on demand."""

from selfsup.data.audio.melody import Melody
from selfsup.data.audio.sources import Sounds

__all__ = ["Melody", "Sounds"]
