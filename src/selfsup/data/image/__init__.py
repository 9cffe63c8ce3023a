"""Images: files and arrays."""

from selfsup.data.image.sources import Arrays, Files

__all__ = ["Arrays", "Files"]
