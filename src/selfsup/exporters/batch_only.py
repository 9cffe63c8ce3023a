"""Encoders of clips (`selfsup.exporters.Exporter`), and what other kinds share with them: the common formats alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from selfsup.errors import UserError
from selfsup.spec import Spec

FORMATS: Mapping[str, str] = {}


def open_dims(spec: Spec) -> dict[int, Any]:
    """Return the batch: any number of samples."""
    return {0: torch.export.Dim("batch", min=1)}


def program(encoder: nn.Module, spec: Spec) -> tuple[nn.Module, Tensor]:
    """Return the encoder, and two normalized samples."""
    return encoder, spec.example(2)


def write(encoder: nn.Module, spec: Spec, name: str, format: str, path: Path, about: dict[str, Any]) -> str:
    """Raise `UserError`: there is no format of their own."""
    raise UserError(f"{name} cannot be exported as {format}: {spec.samples} have no format of their own")
