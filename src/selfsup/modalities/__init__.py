"""What differs between kinds of samples, behind one interface: the loop, the evaluation and the commands ask here."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from selfsup.errors import UserError
from selfsup.views import Views

MODALITIES = {"image": "selfsup.modalities.image:Images", "text": "selfsup.modalities.text:Text"}


class Modality(Protocol):
    """Samples of one kind; a spec names its kind, a key of `MODALITIES`."""

    small: str  # an encoder that takes seconds to build and train
    formats: Mapping[str, str]  # of `export`, with the suffix of each; "" is a folder
    baseline: str  # the row that reads the samples themselves
    alike: bool  # whether the features of that row are put on one scale
    about: Mapping[str, str]  # what the baselines are, in words

    def read_spec(self, recipe: Mapping[str, Any], folder: Path) -> Any:
        """Return the spec of a run; KeyError, TypeError or ValueError for a damaged one."""

    def save(self, spec: Any, folder: Path) -> None:
        """Write what the spec needs beside the recipe."""

    def words(self, spec: Any) -> tuple[str, str]:
        """Return what the samples are called, and what the encoder gets of each."""

    def check(self, source: Any, spec: Any) -> None:
        """Raise `UserError` for a source whose samples the encoder cannot take."""

    def build_encoder(self, name: str, spec: Any, pretrained: bool) -> Any:
        """Return a fresh encoder."""

    def plain_views(self, spec: Any) -> Views:
        """Return the views of evaluation, embedding and export: the key `x`, nothing drawn at random."""

    def labelled_views(self, spec: Any, pad: int, flip: float) -> Views:
        """Return `x` and `y` for training on labels; `pad` and `flip` shift and flip what can be."""

    def several_views(self, spec: Any) -> tuple[Views, str]:
        """Return views of which several are made of a sample (key `x`), and what they are."""

    def features(self, parts: tuple[Any, ...], spec: Any, quiet: bool) -> list[tuple[NDArray[Any], NDArray[Any]]]:
        """Return of each part the numbers of the samples that can be read, and the features of the baseline.

        Whatever the features have to know of the data they learn from the first part, without its labels.
        """

    def baseline_module(self) -> nn.Module | None:
        """Return what makes the features of the baseline of a batch, where one sample's do not depend on others."""

    def draw(self, x: Tensor, spec: Any) -> tuple[Image.Image | None, str]:
        """Return one sample of the plain views for the eye: its picture, if it has one, and its words."""

    def example(self, spec: Any) -> tuple[Tensor, dict[int, Any]]:
        """Return two samples as the encoder gets them, and which dimensions an exported program leaves open."""

    def export(self, encoder: nn.Module, spec: Any, name: str, format: str, path: Path, about: dict[str, Any]) -> str:
        """Write a format of the modality's own; return how to load it."""

    def query(self, text: str) -> Any:
        """Return a source of the one sample that a query of `search` means; raise `UserError` for none."""


def modality(spec: Any) -> Modality:
    """Return the modality of a spec."""
    return by_kind(spec.kind)


def by_kind(kind: str) -> Modality:
    """Return a modality by name."""
    if kind not in MODALITIES:
        raise UserError(f"no such kind of data: {kind}")
    module, _, name = MODALITIES[kind].partition(":")
    found: Modality = getattr(importlib.import_module(module), name)()
    return found


def make_spec(source: Any, **asked: Any) -> Any:
    """Return the spec of a source with the options that were given; `UserError` for one that it does not take."""
    import inspect

    given = {key: value for key, value in asked.items() if value is not None}
    known = inspect.signature(source.spec).parameters
    for key in given:
        if key not in known:
            raise UserError(f"--{key} is not for {source.name}: leave it out")
    return source.spec(**given)
