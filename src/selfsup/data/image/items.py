"""Images from anything with a length and numbered items: data sets of torch, torchvision and Hugging Face, lists."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from selfsup.data.image.decode import colours_of, decode_image, read_image
from selfsup.data.image.instruments import upright
from selfsup.data.image.sources import Images
from selfsup.errors import UserError
from selfsup.source import Broken, Labels
from selfsup.spec import ImageSpec, Spec

LOOKED = 16  # items by which a data set is recognized


class Items(Images):
    """Numbered images that are read lazily.

    An item is an image, a pair or tuple that begins with one, or a mapping that holds it under `key`; see `pixels_of`
    for what an image may be. `fixed`: an item is the same each time, so that some of them identify the data.

    Raises `UserError` if the first item is no image.
    """

    def __init__(
        self, items: Any, name: str, labels: Labels | None = None, key: str | None = None, fixed: bool = True
    ) -> None:
        self.items, self.name, self.labels, self.key, self.fixed = items, name, labels, key, fixed
        if not len(items):
            raise UserError(f"{name} holds no images")
        self.rows = np.arange(len(items))
        try:
            self.shape = self.native(0).shape
        except Broken as error:
            raise UserError(f"{name}: item 0 is not read as an image: {error}") from None

    def __len__(self) -> int:
        return len(self.rows)

    def native(self, index: int) -> NDArray[Any]:
        """Return (H, W, C), or raise `Broken`."""
        try:
            item = self.items[int(self.rows[index])]
        except Exception as error:  # a data set of the user's own may raise anything
            raise Broken(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"[:100]) from None
        if isinstance(item, Mapping):
            item = item.get(self.key)
        elif isinstance(item, tuple | list) and len(item):
            item = item[0]
        return pixels_of(item)

    def spec(
        self,
        size: int | None = None,
        channels: int | None = None,
        range: str | None = None,
        views: str | None = None,
    ) -> ImageSpec:
        """Return what an encoder gets of these images.

        Args:
            size: Pixels per side; by default the first image's shorter side, at most 224, in [8, 4096].
            channels: Channels of an image; by default the first image's own, in [1, 64].
            range: As for files.
            views: As for files.
        """
        return self._own_spec(self.shape, size or max(8, min(224, *self.shape[:2])), channels, range, views)

    def conform(self, spec: Spec) -> Items:
        """Return the same, read with the range of the spec; the views convert the channels."""
        return self._conformed(spec, self.shape[2])

    def path(self, index: int) -> str:
        """Return the number of the item."""
        return str(index)

    def take(self, indices: NDArray[np.int64]) -> Items:
        """Return some of the images."""
        taken = self._some(indices)
        taken.rows = self.rows[indices]
        return taken

    def fingerprint(self) -> str:
        """Return a hash of the name, the number of images, the labels and, where they are fixed, the first images."""
        digest = hashlib.blake2b(f"{self.name}:{len(self)}".encode() + self.rows.tobytes(), digest_size=8)
        for given in (self.labels, self.masks):
            if given is not None:
                digest.update(given.digest())
        for index in range(min(LOOKED, len(self)) if self.fixed else 0):
            try:
                digest.update(self.native(index).tobytes())
            except Broken:
                digest.update(b"broken")
        return digest.hexdigest()


def pixels_of(image: Any) -> NDArray[Any]:
    """Return (H, W, C) of an image of Pillow, an array (H, W[, C]), a tensor, a path, or the bytes of an image file.

    Tensors (C, H, W) as torchvision makes them; see `channels_last`. Hugging Face's undecoded images are mappings with
    `bytes` or `path`. Raises `Broken` for anything else.
    """
    if isinstance(image, Image.Image):
        return colours_of(image)
    if isinstance(image, Mapping):
        image = image.get("bytes") or image.get("path")
    if isinstance(image, bytes | bytearray):
        return decode_image(bytes(image), None)
    if isinstance(image, str) or hasattr(image, "__fspath__"):
        return read_image(image, None)
    if hasattr(image, "detach"):
        pixels = array_of(image)
        return upright(channels_last(pixels[None])[0] if pixels.ndim == 3 else pixels)
    return upright(np.asarray(image))


def array_of(tensor: Any) -> NDArray[Any]:
    """Return a tensor of torch as an array; bfloat16, which numpy lacks, as float32."""
    tensor = tensor.detach().cpu()
    pixels: NDArray[Any] = (tensor.float() if "bfloat16" in str(tensor.dtype) else tensor).numpy()
    return pixels


def channels_last(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return (N, H, W, C) of a tensor's (N, C, H, W), torch's order, or (N, H, W, C).

    It is the latter only if the last dimension is at most 4 and the second is not.
    """
    return pixels if has_channels_last(pixels) else np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))


def has_channels_last(pixels: NDArray[Any]) -> bool:
    """Return whether a tensor of four dimensions is read as (N, H, W, C)."""
    return bool(pixels.shape[3] <= 4 < pixels.shape[1])
