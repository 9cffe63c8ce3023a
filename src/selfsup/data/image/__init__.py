"""Images: files and arrays."""

from selfsup.data.image.sources import Arrays, Files, image_spec

__all__ = ["Arrays", "Files", "image_spec"]
