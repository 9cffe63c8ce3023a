"""The formats of other tools in which an encoder leaves selfsup, for each kind of data."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from selfsup.spec import Spec

EXPORTERS = {"image": "selfsup.exporters.image", "text": "selfsup.exporters.text"}
COMMON = {"safetensors": ".safetensors", "torch": ".pt2", "onnx": ".onnx"}  # of every kind, with their suffixes


class Exporter(Protocol):
    """What a kind of data brings; a module."""

    FORMATS: Mapping[str, str]  # of its own, with the suffix of each; "" is a folder

    def open_dims(self, spec: Spec) -> dict[int, Any]:
        """Return which dimensions of a batch an exported program leaves open."""

    def write(self, encoder: nn.Module, spec: Spec, name: str, format: str, path: Path, about: dict[str, Any]) -> str:
        """Write a format of its own; return how to load it."""


def exporter(kind: str) -> Exporter:
    """Return the exporter of a kind of data."""
    return importlib.import_module(EXPORTERS[kind])
