"""Sources of samples and their labels."""

from selfsup.data.images import Broken
from selfsup.data.open import open_data
from selfsup.data.sources import Arrays, Files, ImageSpec, Labels, Source
from selfsup.data.texts import Pieces, Texts, TextSpec

__all__ = ["Arrays", "Broken", "Files", "ImageSpec", "Labels", "Pieces", "Source", "TextSpec", "Texts", "open_data"]
