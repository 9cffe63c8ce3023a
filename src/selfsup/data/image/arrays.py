"""Images in memory."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfsup.data.image.sources import AUTO, Images
from selfsup.errors import UserError
from selfsup.source import Labels
from selfsup.spec import ImageSpec, Spec
from selfsup.spec.image import MAX_CHANNELS


class Arrays(Images):
    """Images in memory: `x` (N, H, W[, C]), numbers of any type, up to 64 channels. Raises `UserError` for others."""

    def __init__(self, x: NDArray[Any], labels: Labels | None = None, name: str = "arrays") -> None:
        if x.ndim not in (3, 4) or x.dtype.kind not in "buif":
            raise UserError(f"{name}: x must hold numbers, of shape (N, H, W) or (N, H, W, C), not {x.dtype} {x.shape}")
        if x.ndim == 3 and x.shape[2] in (3, 4) and min(x.shape[:2]) > 4:
            raise UserError(
                f"{name}: x has the shape {x.shape}, which is one image in colour, or {x.shape[0]} images {x.shape[2]} "
                "pixels wide: give x[None] for the one image, (N, H, W, C) for several"
            )
        if x.ndim == 3:
            x = x[..., None]
        if len(x) == 0:
            raise UserError(f"{name} holds no images")
        first, *others = x.shape[1:]
        # a height that is less than the width and the number of channels is rare: no image that low, or no square one
        if x.shape[3] > 4 and (first in (1, 3) or (first < min(others) and (first <= 16 or others[0] == others[1]))):
            raise UserError(f"{name}: x has the shape {x.shape}; channels come last: x.transpose(0, 2, 3, 1)")
        if 0 in x.shape or x.shape[3] > MAX_CHANNELS:
            raise UserError(f"{name}: x has the shape {x.shape}; images have 1 to {MAX_CHANNELS} channels, last")
        if labels is not None and len(labels.ids) != len(x):
            raise UserError(f"{name}: {len(labels.ids)} labels for {len(x)} images")
        if x.dtype == np.bool_:
            x = x.astype(np.uint8) * np.uint8(255)
        self.x, self.labels, self.name = np.ascontiguousarray(x, x.dtype.newbyteorder("=")), labels, name

    def __len__(self) -> int:
        return len(self.x)

    def native(self, index: int) -> NDArray[Any]:
        """Return (H, W, C), in the type of the arrays."""
        return self.x[index]

    def several(self, indices: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return images (N, H, W, C), read as `read` does, and which of them are these samples."""
        if (self.x.dtype == np.uint8 and (self.range is None or self.range == AUTO)) or (
            self.x.dtype == np.uint16 and self.range is None
        ):
            return self.x, indices
        return np.stack([self.read(index) for index in indices.tolist()]), np.arange(len(indices))

    def spec(
        self,
        size: int | None = None,
        channels: int | None = None,
        range: str | None = None,
        views: str | None = None,
    ) -> ImageSpec:
        """Return what an encoder gets of these arrays.

        Args:
            size: Pixels per side; by default the arrays' own shorter side, at least 8, in [8, 4096].
            channels: Channels of an image; by default the arrays' own, in [1, 64].
            range: As for files.
            views: As for files.

        Raises:
            UserError: For other channels than their own, unless grey becomes three or colour becomes grey, and for an
                unknown family of views.
        """
        shape = self.x.shape[1:]
        return self._own_spec(shape, size or max(min(shape[:2]), 8), channels, range, views)

    def conform(self, spec: Spec) -> Arrays:
        """Return the same, read with the range of the spec; the views convert the channels."""
        return self._conformed(spec, self.x.shape[3])

    def _are_ordinary(self, channels: int) -> bool:
        return self.x.dtype == np.uint8

    def take(self, indices: NDArray[np.int64]) -> Arrays:
        """Return some of the images."""
        taken = self._some(indices)
        taken.x = self.x[indices]
        return taken

    def fingerprint(self) -> str:
        """Return a hash of the shape, every pixel and the labels."""
        about = repr(self.x.shape) + (self.x.dtype.str if self.x.dtype.itemsize > 2 else "")
        digest = hashlib.blake2b(about.encode(), digest_size=8)
        digest.update(self.x.data)
        for given in (self.labels, self.masks):
            if given is not None:
                digest.update(given.digest())
        return digest.hexdigest()
