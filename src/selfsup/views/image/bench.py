"""`selfsup bench views`: how fast the user's own images become views, and how many cores a training step needs."""

from __future__ import annotations

import math
import statistics
import time
from typing import Any

import numpy as np

from selfsup.base.processes import available_cores
from selfsup.data.image import Arrays, image_spec
from selfsup.source import Source
from selfsup.views.image import views as images
from selfsup.views.image.crop import preset
from selfsup.views.image.views import ImageViews
from selfsup.views.loader import batches
from selfsup.views.reading import read_or_substitute


def bench(
    source: Source,
    name: str,
    size: int | None = None,
    family: str | None = None,
    batch_size: int = 64,
    step_seconds: float | None = None,
    seconds: float = 6.0,
) -> dict[str, Any]:
    """Measure preset `name` in a family of views on a source; takes about `seconds`.

    `step_seconds`: how long one training step on `batch_size` samples takes. Returns images_per_second of one core and
    with_all_cores, decode_share (0 to 1, of a core's time), milliseconds an image, cores, engine (`compiled` or
    `torch`), skipped samples, and with `step_seconds` cores_needed, so that the step never waits.
    Raises `UserError` for an unknown preset or family, or too few samples.
    """
    spec = image_spec(source, size=size, views=family)
    views = ImageViews(spec, preset(name, spec.size))
    conformed, batch_size = source.conform(spec), min(batch_size, len(source))
    rng = np.random.default_rng(0)
    views.fetch(source, rng.integers(0, len(source), min(batch_size, 4)), 0, 0)  # compiles
    whole: list[float] = []
    reading: list[float] = []
    skipped = 0
    end = time.perf_counter() + seconds / 2
    while not whole or time.perf_counter() < end:
        indices = rng.integers(0, len(source), batch_size)
        begin = time.perf_counter()
        if not isinstance(source, Arrays):
            for index in indices.tolist():
                read_or_substitute(conformed, index, 0, 0)
        middle = time.perf_counter()
        skipped += len(views.fetch(source, indices, 0, 0).skipped)
        whole.append(time.perf_counter() - middle)
        reading.append(middle - begin)
    cost = statistics.median(whole) / batch_size
    cores = available_cores()
    result: dict[str, Any] = {
        "preset": name,
        "views": spec.views,
        "size": spec.size,
        "engine": images.engine_name(),
        "images_per_second": 1 / cost,
        "milliseconds": 1000 * cost,
        "decode_share": min(1.0, statistics.median(r / w for r, w in zip(reading, whole, strict=True))),
        "cores": cores,
        "with_all_cores": _together(
            source, views, batch_size, max(2, int(seconds / 2 / cost / batch_size * cores)), cores
        ),
        "skipped": skipped,
    }
    if step_seconds is not None:
        result["cores_needed"] = math.ceil(batch_size * cost / step_seconds)
    return result


def _together(source: Source, views: ImageViews, batch_size: int, steps: int, cores: int) -> float:
    """Return the images a second of all cores together."""
    stream = batches(source, views, batch_size=batch_size, seed=0, start=0, steps=steps + 1, workers=cores)
    next(stream)
    begin = time.perf_counter()
    for _ in stream:
        pass
    return steps * batch_size / (time.perf_counter() - begin)
