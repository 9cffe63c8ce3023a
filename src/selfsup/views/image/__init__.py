"""Views of images."""

from selfsup.views.image.crop import PRESETS, Crop, centre, multi_crop, patches, preset
from selfsup.views.image.views import ImageViews

__all__ = ["PRESETS", "Crop", "ImageViews", "centre", "multi_crop", "patches", "preset"]
