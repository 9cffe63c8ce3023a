"""The map of an embedding: t-SNE (van der Maaten and Hinton, 2008) of unit vectors, with images and clips on hover."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from selfsup.reports.charts import legend
from selfsup.reports.items import Items
from selfsup.reports.media import webp
from selfsup.reports.page import Html, data_uri, join, tag
from selfsup.spec import Clip

SIDE, MARGIN = 1000, 24  # of the map, in its own units
TILE, SHOWN = 48, 96  # pixels of a thumbnail in the file, and on the page
COLOURS = 10


def layout(features: NDArray[np.float32], seed: int = 0) -> NDArray[np.float64]:
    """Return places (n, 2) in [0, 1] for features (n, d): rows of unit length, at most 50 principal components, t-SNE.

    Fewer than 5 samples, or samples that are all alike, are placed by their principal components alone.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    x = np.asarray(features, np.float64)
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    x = x - x.mean(0)
    left, size, _ = np.linalg.svd(x, full_matrices=False)
    parts = (left * size)[:, :50]
    places = np.zeros((len(x), 2))
    places[:, : min(2, parts.shape[1])] = parts[:, :2]
    if len(x) >= 5 and size[0] > 1e-6 * math.sqrt(len(x)) and parts.shape[1] > 1:
        start = places / places[:, 0].std() * 1e-4
        perplexity = min(30.0, (len(x) - 1) / 3)
        with threadpool_limits(1):  # on a busy machine its threads would wait for each other
            places = TSNE(perplexity=perplexity, init=start, random_state=seed).fit_transform(parts).astype(np.float64)
    spread = places.max(0) - places.min(0)
    return (places - places.min(0)) / np.where(spread > 0, spread, 1)


def draw_map(items: Items, places: NDArray[np.float64]) -> Html:
    """Return the map: one dot a sample in the colour of its class, and the tooltip that the page's script shows.

    Without the script the browser's own tooltips name the samples.
    """
    colours = _colours(items)
    dots = []
    for number, (x, y) in enumerate(MARGIN + places * (SIDE - 2 * MARGIN)):
        name = tag("title", "\n".join(filter(None, (items.name(number), items.words[number]))))
        dots.append(
            tag("circle", name, cx=f"{x:.0f}", cy=f"{y:.0f}", r=7, class_=colours.get(int(items.ids[number]), "other"))
        )
    known = [(colour, items.classes[number]) for number, colour in colours.items()]
    if known and {int(number) for number in items.ids} - colours.keys():
        known.append(("other", "all others"))
    about = f"Map of {len(items):,} samples: similar ones are close. Arrow keys go from sample to sample."
    drawing = tag("svg", *dots, viewBox=f"0 0 {SIDE} {SIDE}", role="img", aria_label=about, tabindex="0")
    columns = math.ceil(math.sqrt(len(items)))
    thumb = Html()
    if any(items.images):
        sheet = data_uri(*_sprite(items.images, columns))
        size = columns * SHOWN
        thumb = join([
            tag("style", Html(f".thumb{{background-image:url({sheet});background-size:{size}px auto}}")),
            tag("span", class_="thumb"),
        ])  # fmt: skip
    tip = tag("div", thumb, tag("span", class_="words"), class_="tip", hidden="", aria_live="polite")
    return join([tag("div", drawing, tip, class_="map", data_columns=columns), legend(known) if known else ""])


def _colours(items: Items) -> dict[int, str]:
    """Return the CSS classes of the most frequent classes."""
    counts = Counter(int(number) for number in items.ids if number >= 0)
    often = sorted(number for number, _ in counts.most_common(COLOURS))
    return {number: f"s{place}" for place, number in enumerate(often)}


def _sprite(images: Sequence[Image.Image | Clip | None], columns: int) -> tuple[bytes, str]:
    """Return all thumbnails in one JPEG, row by row, or with clips in an animated WebP, and its MIME type."""
    clips = [one for one in images if isinstance(one, Clip)]
    sheets = [_sheet(images, columns, time) for time in range(max((len(clip.frames) for clip in clips), default=1))]
    if clips:
        return webp(sheets, round(1000 / clips[0].rate), 50), "image/webp"
    buffer = io.BytesIO()
    sheets[0].save(buffer, "jpeg", quality=72, optimize=True)
    return buffer.getvalue(), "image/jpeg"


def _sheet(images: Sequence[Image.Image | Clip | None], columns: int, time: int) -> Image.Image:
    sheet = Image.new("RGB", (columns * TILE, math.ceil(len(images) / columns) * TILE), "grey")
    for number, one in enumerate(images):
        image = Image.fromarray(one.frames[time % len(one.frames)]) if isinstance(one, Clip) else one
        if image is not None:
            place = (number % columns * TILE, number // columns * TILE)
            sheet.paste(image.convert("RGB").resize((TILE, TILE), Image.Resampling.BOX), place)
    return sheet
