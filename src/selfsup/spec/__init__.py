"""Specs: a frozen description, for each kind of data, of the samples that an encoder takes. JSON in and out."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

from torch import Tensor

from selfsup.errors import UserError
from selfsup.spec.clip import ClipSpec
from selfsup.spec.image import ImageSpec
from selfsup.spec.media import Clip, Media, Waveform
from selfsup.spec.text import TextSpec
from selfsup.spec.trajectory import TrajectorySpec
from selfsup.spec.wave import WaveSpec

__all__ = [
    "SPECS", "Clip", "ClipSpec", "ImageSpec", "Media", "Spec", "TextSpec", "TrajectorySpec", "WaveSpec", "Waveform",
    "has_views", "read_spec",
]  # fmt: skip

SPECS = {
    "image": "selfsup.spec.image:ImageSpec",
    "text": "selfsup.spec.text:TextSpec",
    "video": "selfsup.spec.clip:ClipSpec",
    "audio": "selfsup.spec.wave:WaveSpec",
    "trajectory": "selfsup.spec.trajectory:TrajectorySpec",
}


class Spec(Protocol):
    """Samples of one kind as an encoder takes them."""

    kind: ClassVar[str]  # a key of `SPECS`
    samples: ClassVar[str]  # the plural noun: images, texts

    of_training: ClassVar[tuple[str, ...]]  # fields that change the views of a task, and not what an encoder takes

    @property
    def axes(self) -> str:
        """The axes of a batch: BCHW, BT; several views of a sample have one more, behind B."""

    def example(self, n: int) -> Tensor:
        """Return n placeholder samples of the right shape and type, for measuring and for export."""

    def describe(self) -> str:
        """Return the size of a sample in words."""

    def draw(self, x: Tensor) -> Media:
        """Return one sample, as the views make it, in a form to be seen, read or heard."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values, `kind` among them, from which `from_json` makes the same spec."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any], folder: Path) -> Spec:
        """Return the spec of a run folder; KeyError, TypeError or ValueError for values that are damaged."""

    def save(self, folder: Path) -> None:
        """Write what the JSON does not contain (the tokenizer of texts) into a run folder."""


def read_spec(values: Mapping[str, Any], folder: Path) -> Spec:
    """Return the spec that `to_json` and `save` wrote into a run folder, of whatever kind.

    Raises `UserError` for an unknown kind; KeyError, TypeError or ValueError for values that are damaged.
    """
    kind = values["kind"]
    if kind not in SPECS:
        raise UserError(f"no such kind of data: {kind}")
    module, _, name = SPECS[kind].partition(":")
    return getattr(importlib.import_module(module), name).from_json(values, folder)


def has_views(x: Tensor, spec: Spec) -> bool:
    """Return whether a batch holds several views of each sample: (B, V, ...) where the spec's axes are (B, ...)."""
    return x.ndim == len(spec.axes) + 1
