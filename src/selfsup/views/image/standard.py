"""The standard views of images (`selfsup.views.StandardViews`)."""

from __future__ import annotations

from dataclasses import replace

from selfsup.spec import ImageSpec
from selfsup.spec.image import NATURAL
from selfsup.views.image.crop import Crop, centre
from selfsup.views.image.crop import preset as groups_of
from selfsup.views.image.views import ImageViews


def plain(spec: ImageSpec) -> ImageViews:
    """Return the centre of the image, unchanged."""
    return ImageViews(replace(spec, views=NATURAL), {"x": centre(spec.size)})


def whole(spec: ImageSpec) -> ImageViews:
    """Return the whole image, squeezed into the square: for labels of all of its places."""
    return ImageViews(replace(spec, views=NATURAL), {"x": Crop(spec.size, whole=True)})


def labelled(spec: ImageSpec, pad: int, flip: float) -> ImageViews:
    """Return shifted, flipped images, in the family of the spec, and their labels."""
    return ImageViews(spec, {"x": Crop(spec.size, pad=pad, flip=flip)}, labels=True)


def several(spec: ImageSpec) -> tuple[ImageViews, str]:
    """Return random crops, natural ones in every family: what is measured by them stays comparable."""
    views = ImageViews(replace(spec, views=NATURAL), {"x": Crop(spec.size, scale=(0.5, 1.0))})
    return views, "random crops of half to all of the image"


def single(spec: ImageSpec, scale: float) -> ImageViews:
    """Return one crop with SimCLR's distortion."""
    return ImageViews(spec, {"x": distorted(spec.size, scale)})


def distorted(size: int, scale: float) -> Crop:
    """Return one of SimCLR's crops, of at least `scale` of the area."""
    return replace(groups_of("simclr", size, scale=scale)["x"], count=1)


def preset(spec: ImageSpec, name: str, scale: float, noise: bool) -> ImageViews:
    """Return the views of a preset of `selfsup.views.image.preset`."""
    return ImageViews(spec, groups_of(name, spec.size, scale=scale), noise=noise)
