"""Images: files and arrays."""

from selfsup.data.image.arrays import Arrays
from selfsup.data.image.files import Files
from selfsup.data.image.sources import image_spec

__all__ = ["Arrays", "Files", "image_spec"]
