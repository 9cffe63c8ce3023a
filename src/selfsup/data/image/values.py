"""How the values of images become numbers from 0 to 1: one range for a whole data set, never one an image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfsup.errors import UserError
from selfsup.source import Broken

Range = tuple[float, float]

SAMPLE = 64  # images that are looked at
KEPT = 4096  # values of each image from which quantiles are taken
NOTHING_LEFT = 0.99  # fraction of the values outside of a range beyond which it is refused
OUTLIERS = 8  # times the width of the middle 99.8 %: beyond, the extremes are outliers
# ranges that instruments and programs write; one fits if the values lie inside and fill at least half of it
NATURAL = [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0), *((0.0, float(2**bits - 1)) for bits in range(9, 33))]


def read_range(text: Any) -> str | Range:
    """Return `auto`, `dtype` or (low, high) from what a user gave; `UserError` for anything else."""
    if text in (None, "auto"):
        return "auto"
    if text == "dtype":
        return "dtype"
    try:
        low, high = map(float, text.split(":") if isinstance(text, str) else text)
    except (TypeError, ValueError):
        low, high = 0.0, 0.0
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UserError(f"--range is auto, dtype or MIN:MAX with MIN < MAX, not {text!r}")
    return low, high


def scaled(pixels: NDArray[Any], bounds: Range | None) -> NDArray[Any]:
    """Return images as they are (uint8, uint16: 0 to the largest value of the type), or float32 from 0 to 1.

    Values outside of `bounds` are clipped; NaN becomes the lower bound. Without bounds other types are `Broken`.
    """
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * np.uint8(255)
    if bounds is None:
        if pixels.dtype in (np.uint8, np.uint16):
            return pixels
        raise Broken(f"{pixels.dtype} values in a data set of 8-bit images; give --range MIN:MAX")
    low, high = bounds
    wide = (pixels.dtype.kind != "f" and pixels.dtype.itemsize > 2) or pixels.dtype.itemsize > 4
    values: NDArray[Any] = pixels.astype(np.float64 if wide else np.float32)
    if pixels.dtype.kind == "f":
        missing = np.isnan(values)
        if missing.all():
            raise Broken("nothing but NaN")
        values[missing] = low
    with np.errstate(over="ignore", invalid="ignore"):
        np.subtract(values, low, out=values)
        np.divide(values, high - low, out=values)
    return values.clip(0, 1, out=values).astype(np.float32, copy=False)


def to_uint8(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Return images that `scaled` returned as uint8, to be shown."""
    if pixels.dtype == np.uint16:
        return (pixels >> 8).astype(np.uint8)
    if pixels.dtype == np.float32:
        return (pixels * 255).round().astype(np.uint8)
    return pixels


def family(pixels: NDArray[Any]) -> str:
    """Return to which types a type belongs whose values have the same scale: 8 bits, whole numbers, or fractions."""
    return "8 bits" if pixels.dtype in (np.uint8, np.bool_) else "fractions" if pixels.dtype.kind == "f" else "whole"


@dataclass
class Values:
    """What a sample of the images holds, collected one by one."""

    types: dict[str, int] = field(default_factory=dict)  # images of each type
    tops: dict[str, float] = field(default_factory=dict)  # the highest value of each type
    found: set[str] = field(default_factory=set)  # their families
    low: float = math.inf
    high: float = -math.inf
    nan: int = 0
    infinite: int = 0
    affected: int = 0  # images with NaN or infinity
    kept: list[NDArray[np.float64]] = field(default_factory=list)

    def add(self, pixels: NDArray[Any]) -> None:
        """Take the values of one image (H, W, C) into account."""
        if pixels.dtype == np.bool_:
            pixels = pixels.astype(np.uint8) * np.uint8(255)
        name = pixels.dtype.name
        self.types[name] = self.types.get(name, 0) + 1
        self.found.add(family(pixels))
        grey = pixels[..., :1]
        if pixels.shape[-1] == 3 and np.array_equal(pixels, np.repeat(grey, 3, -1), equal_nan=pixels.dtype.kind == "f"):
            pixels = grey  # read as colour: its values count once
        values = pixels.reshape(-1)
        if pixels.dtype.kind == "f":
            finite = np.isfinite(values)
            if not finite.all():
                nan = int(np.isnan(values).sum())
                self.nan += nan
                self.infinite += len(values) - int(finite.sum()) - nan
                self.affected += 1
                values = values[finite]
        if len(values):
            top = float(values.max())
            self.low, self.high = min(self.low, float(values.min())), max(self.high, top)
            self.tops[name] = max(self.tops.get(name, top), top)
            self.kept.append(values[:: max(1, len(values) // KEPT)].astype(np.float64))

    @property
    def images(self) -> int:
        """How many images were looked at."""
        return sum(self.types.values())

    @property
    def families(self) -> frozenset[str]:
        """The families of their types; none where 8-bit images are mixed with others, and each is read by its type."""
        return frozenset(self.found if "8 bits" not in self.found else ())

    def compare(self, bounds: Range | None) -> list[str]:
        """Return a line where the values are other than those of the data with which an encoder was trained."""
        types = " and ".join(self.types)
        if bounds is None:
            if self.found <= {"8 bits"}:
                return []
            return [
                f"{types} values, but the encoder was trained on 8-bit images: uint16 is read from 0 to 65535, other "
                "types are left out"
            ]
        if not self.kept:
            return []
        said = f"{types} values from {self.low:g} to {self.high:g}, but the encoder was trained with {_say(*bounds)}"
        if (fraction := self.outside(bounds)) > 0.01:
            return [f"{said}: {fraction:.0%} of them are outside and clipped"]
        if (self.high - self.low) * OUTLIERS < bounds[1] - bounds[0]:
            return [f"{said}, of which they fill {(self.high - self.low) / (bounds[1] - bounds[0]):.1%}"]
        return []

    def choose(self, wanted: str | Range) -> tuple[Range | None, tuple[str, ...]]:
        """Return the range by one rule, None for that of the type of 8-bit images, and what a user should know.

        `auto`: 8-bit images as they are. Otherwise the first of `NATURAL` that the values fill at least by half; else
        from the lowest to the highest value, a 16th of that more at each end, from 0 if the lowest is near it; with
        outliers only the middle 99.8 % count. `dtype`: the range of the type, 0 to 1 of floats. Images of several
        types, 8 bits among them, are each read by their type. Raises `UserError` for a range that leaves nothing.
        """
        told: list[str] = []
        if self.nan or self.infinite:
            told.append(
                f"{self.nan:,} values are NaN and {self.infinite:,} are infinite, in {self.affected:,} of "
                f"{self.images:,} images looked at; NaN is read as the lower end of the range, infinity as its ends"
            )
        if isinstance(wanted, tuple):
            return wanted, (*self._clipped(wanted), *told)
        types = " and ".join(f"{count:,} {name}" for name, count in self.types.items())
        if set(self.types) <= {"uint8"}:
            if 0 <= self.high <= 15 and self.low < self.high:
                told.append(
                    f"no value of {self.images:,} images is above {self.high:.0f} of 255: they are nearly black; "
                    f"--range 0:{self.high:.0f} would use the whole range"
                )
            return None, tuple(told)
        if "uint8" in self.types:
            top = self.tops.get("uint16", 1e5)
            dark = f" (uint16 values reach only {top:.0f} of 65535, which is nearly black)" if top <= 8192 else ""
            told.append(
                f"images of several types ({types}): each is read by its type{dark}, other types than uint8 and uint16 "
                "are left out; --range MIN:MAX reads all alike"
            )
            return None, tuple(told)
        if not math.isfinite(self.low):
            raise UserError(f"{self.images:,} images hold nothing but NaN or infinity; there is nothing to learn from")
        if wanted == "dtype":
            low, high = self._of_types()
            said = f"{types} images: {_say(low, high)}, the range of the type, is read as 0 to 1"
            return (low, high), (said, *self._clipped((low, high)), *told)
        low, high, clipped = self._fitted()
        told.insert(
            0,
            f"{' and '.join(self.types)} values from {self.low:g} to {self.high:g} in {self.images:,} images looked "
            f"at: all images are read with the range {_say(low, high)}, {clipped}; --range MIN:MAX sets another one",
        )
        return (low, high), tuple(told)

    def outside(self, bounds: Range) -> float:
        """Return the fraction of the values that a range clips."""
        if not self.kept or (bounds[0] <= self.low and self.high <= bounds[1]):
            return 0.0
        values = np.concatenate(self.kept)
        return float(((values < bounds[0]) | (values > bounds[1])).mean())

    def _clipped(self, bounds: Range) -> list[str]:
        """Return a line on the values that a range clips, if there are any."""
        fraction, said = self.outside(bounds), f"from {self.low:g} to {self.high:g}"
        if fraction > NOTHING_LEFT:
            raise UserError(
                f"--range {bounds[0]:g}:{bounds[1]:g} leaves nothing of values {said} in {self.images:,} images looked "
                f"at: {fraction:.0%} are outside"
            )
        if not fraction and bounds[0] <= self.low and self.high <= bounds[1]:
            return []
        return [f"{fraction:.2%} of the values looked at, {said}, are outside of {_say(*bounds)} and clipped"]

    def _of_types(self) -> Range:
        floats = any(name.startswith("float") for name in self.types)
        return (0.0, 1.0) if floats else (0.0, float(max(np.iinfo(name).max for name in self.types)))

    def _fitted(self) -> tuple[float, float, str]:
        low, high, clipped = self.low, self.high, "values outside are clipped"
        middle_low, middle_high = np.quantile(np.concatenate(self.kept), (0.001, 0.999)).tolist()
        if middle_high > middle_low and high - low > OUTLIERS * (middle_high - middle_low):
            clipped = "what is outside is clipped as an outlier"
            low, high = max(low, middle_low), min(high, middle_high)
        if low == high:
            low, high = min(low, 0.0), max(high, 0.0) if high else 1.0
            return low, high, clipped
        for bottom, top in NATURAL:
            if bottom <= low and high <= top and (high - low) * 2 >= top - bottom:
                if top == 1.0 and not any(name.startswith("float") for name in self.types):
                    continue
                return bottom, top, clipped
        margin = (high - low) / 16
        floor = 0.0 if low >= 0 and low <= (high - low) / 4 else low - margin
        if low >= 0:
            floor = max(floor, 0.0)
        top = high + margin
        if not any(name.startswith("float") for name in self.types):
            return float(math.floor(floor)), float(math.ceil(top)), clipped
        return float(f"{floor:.6g}"), float(f"{top:.6g}"), clipped


def _say(low: float, high: float) -> str:
    return f"{low:g} to {high:g}"


def mean_std(images: Sequence[NDArray[Any]], channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and the standard deviation of each channel of images (H, W, C) as `scaled` returned them."""
    total, squares, count = np.zeros(channels), np.zeros(channels), 0
    for pixels in images:
        largest = 1 if pixels.dtype == np.float32 else np.iinfo(pixels.dtype).max
        values = pixels.reshape(-1, channels).astype(np.float64) / largest
        total += values.sum(0)
        squares += (values**2).sum(0)
        count += len(values)
    mean = total / max(count, 1)
    std = np.sqrt(np.maximum(squares / max(count, 1) - mean**2, 0))
    std[std < 1e-6] = 1.0  # a constant channel
    return tuple(float(f"{v:.4g}") for v in mean), tuple(float(f"{v:.4g}") for v in std)
