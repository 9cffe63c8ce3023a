"""Data sets of torchvision, by name."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from selfsup.base.cache import cache_folder
from selfsup.data.image.decode import from_pillow
from selfsup.data.image.instruments import upright
from selfsup.data.image.sources import Images, check_channels, image_only
from selfsup.data.labels import array_labels
from selfsup.errors import UserError, unknown
from selfsup.source import Broken, Labels
from selfsup.spec import ImageSpec, Spec

# modes of Pillow whose values are not those of colours on white
MIXED = ("P", "PA", "LA", "La", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")


def open_torchvision(name: str) -> Torchvision:
    """Open `torchvision:NAME[:PART]`. Raises `UserError` for a data set that torchvision cannot provide."""
    import torchvision.datasets

    _, wanted, *part = name.split(":", 2)
    found = {key: getattr(torchvision.datasets, key) for key in torchvision.datasets.__all__}
    base = found.pop("VisionDataset")
    known = {key: one for key, one in found.items() if inspect.isclass(one) and issubclass(one, base)}
    if wanted not in known:
        raise unknown("torchvision data set", wanted, known)
    takes = inspect.signature(known[wanted].__init__).parameters
    options: dict[str, Any] = {"root": cache_folder() / "torchvision"} if "root" in takes else {}
    options |= {"download": True} if "download" in takes else {}
    if "split" in takes:
        options["split"] = part[0] if part else "train"
    elif "train" in takes and (not part or part[0] in ("train", "test")):
        options["train"] = part != ["test"]
    elif part:
        raise UserError(f"{name}: torchvision's {wanted} has no part {part[0]!r}")
    try:
        return Torchvision(known[wanted](**options), name)
    except (OSError, RuntimeError, ValueError, TypeError, ImportError, Broken) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"torchvision cannot provide {wanted} as images: {reason}") from error


class Torchvision(Images):
    """A torchvision data set of (image, label) pairs, read lazily."""

    def __init__(self, dataset: Any, name: str) -> None:
        self.dataset, self.name = dataset, name
        targets = getattr(dataset, "targets", getattr(dataset, "labels", None))
        self.labels: Labels | None = None
        if targets is not None and np.ndim(targets) == 1 and len(targets) == len(dataset):
            classes = tuple(map(str, getattr(dataset, "classes", ())))
            ids = np.asarray(targets, dtype=np.int64)
            named = len(classes) > int(ids.max())
            self.labels = Labels(ids, classes) if named else array_labels(name, ids)
        self.shape = self.native(0).shape

    def __len__(self) -> int:
        return len(self.dataset)

    def native(self, index: int) -> NDArray[Any]:
        """Return (H, W, C), or raise `Broken`."""
        try:
            sample = self.dataset[index][0]
            if isinstance(sample, Image.Image) and sample.mode in MIXED:
                sample = from_pillow(sample, 3)
            pixels = np.asarray(sample)
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise Broken(f"torchvision: {type(error).__name__}") from None
        return upright(pixels)

    def spec(self, size: int | None = None, channels: int | None = None, range: str | None = None) -> ImageSpec:
        """Return what an encoder gets of these images.

        Args:
            size: Pixels a side; by default the first image's shorter side, at most 224, in [8, 4096].
            channels: Channels of an image; by default the first image's own, in [1, 64].
            range: As for files.
        """
        check_channels(self.shape[2], self.name, channels)
        return self._made(size or max(8, min(224, *self.shape[:2])), channels or self.shape[2], range)

    def conform(self, spec: Spec) -> Torchvision:
        """Return the same, read with the range of the spec; the views convert the channels."""
        spec = image_only(self, spec)
        check_channels(self.shape[2], self.name, spec.channels)
        self._compare(spec.range, spec.channels)
        return self.conform_to(spec.channels, spec.range)

    def take(self, indices: NDArray[np.int64]) -> Torchvision:
        """Return some of the images."""
        from torch.utils.data import Subset

        taken = copy.copy(self)
        taken.dataset = Subset(self.dataset, indices.tolist())
        taken.labels = self.labels and self.labels.take(indices)
        return taken

    def fingerprint(self) -> str:
        """Return the name, the number of images and a hash of the labels."""
        return f"{self.name}:{len(self)}" + (f":{self.labels.digest().hex()}" if self.labels else "")
