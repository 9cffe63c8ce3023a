"""Encoders of clips (`selfsup.exporters.Exporter`): the common formats alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from selfsup.errors import UserError
from selfsup.spec import ClipSpec

FORMATS: Mapping[str, str] = {}


def open_dims(spec: ClipSpec) -> dict[int, Any]:
    """Return the batch: any number of clips."""
    return {0: torch.export.Dim("batch", min=1)}


def write(encoder: nn.Module, spec: ClipSpec, name: str, format: str, path: Path, about: dict[str, Any]) -> str:
    """Raise `UserError`: there is no format of clips' own."""
    raise UserError(f"{name} cannot be exported as {format}: clips have no format of their own")
