"""What the teacher of `distill` makes of images that are always seen alike: computed once, and kept in the cache."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from selfsup.base.cache import cache_folder, check_room, new_in_cache
from selfsup.base.progress import counting
from selfsup.errors import RunFailed
from selfsup.source import Broken, Source
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Fetched, Views
from selfsup.tasks.image.distill_teacher import Teacher
from selfsup.views import plain_views

PART = 64  # images at once


def stored_targets(teacher: Teacher, source: Source, spec: ImageSpec, places: bool) -> Path:
    """Return the folder in the cache with what a teacher makes of the plain view of each sample.

    It holds `target.npy` (N, dim) float32 and with `places` `places.npy` (N, width, h, w) float16, and is named by the
    weights of the teacher, the data and the spec. Broken samples have zeros, which nobody reads. Raises `UserError`
    where the disk has no room, `RunFailed` where too many samples cannot be read.
    """
    about = [teacher.digest(), teacher.size, spec.to_json(), source.fingerprint(), places]
    name = hashlib.blake2b(json.dumps(about).encode(), digest_size=16).hexdigest()
    folder = cache_folder() / "teachers" / name[:2] / name
    if folder.is_dir():
        return folder
    source, views = source.conform(spec), plain_views(spec).for_device(torch.device("cpu"))
    z, maps = teacher(spec.example(1), spec, places)
    shapes = {"target": (np.float32, z.shape[1:])} | ({} if maps is None else {"places": (np.float16, maps.shape[1:])})
    needed = sum(len(source) * shape.numel() * np.dtype(dtype).itemsize for dtype, shape in shapes.values())
    remedy = "--patch-weight 0 keeps no places; or " if places else ""
    check_room(f"the teacher's features of {len(source):,} images", needed, remedy)
    with new_in_cache(folder) as aside, counting("the teacher reads", len(source), quiet=False) as advance:
        aside.mkdir()
        files = {
            key: open_memmap(aside / f"{key}.npy", "w+", dtype, (len(source), *shape))
            for key, (dtype, shape) in shapes.items()
        }
        for begin in range(0, len(source), PART):
            wanted = np.arange(begin, min(begin + PART, len(source)))
            try:
                batch = views.fetch(source, wanted, 0, 0).batch
            except Broken as error:
                raise RunFailed(str(error)) from None
            read = batch["index"].numpy() == wanted  # a broken sample was replaced by another one
            for file, found in zip(files.values(), teacher(views.finish(batch)["x"], spec, places), strict=False):
                assert found is not None
                file[wanted[read]] = found.numpy()[read]
            advance(len(wanted))
        for file in files.values():
            file.flush()
    return folder


@dataclass(frozen=True)
class TargetViews:
    """Plain views with what a teacher makes of each: `target` (B, dim) float32, `places` (B, width, h, w) if stored."""

    plain: Views
    folder: str

    def for_device(self, device: torch.device) -> TargetViews:
        """Return the same as it suits a device."""
        return replace(self, plain=self.plain.for_device(device))

    def fetch(self, source: Source, indices: NDArray[np.int64], seed: int, epoch: int) -> Fetched:
        """Return the batch with the rows of the samples that were read."""
        fetched = self.plain.fetch(source, indices, seed, epoch)
        read = fetched.batch["index"].numpy()
        files = Path(self.folder).glob("*.npy")
        rows = {path.stem: torch.from_numpy(np.load(path, "r", allow_pickle=False)[read]) for path in files}
        return Fetched({**fetched.batch, **rows}, fetched.skipped)

    def finish(self, batch: Batch) -> Batch:
        """Return the images as the encoder gets them, and places as float32."""
        done = dict(self.plain.finish(batch))
        return done | {key: done[key].float() for key in ("target", "places") if key in done}
