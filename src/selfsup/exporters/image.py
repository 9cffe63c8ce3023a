"""Encoders of images for timm (`selfsup.exporters.Exporter`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from selfsup.encoders.image.timm_model import TimmModel
from selfsup.errors import UserError
from selfsup.spec import ImageSpec
from selfsup.train.checkpoint import save_tensors

FORMATS = {"timm": ".safetensors"}


def open_dims(spec: ImageSpec) -> dict[int, Any]:
    """Return the batch: any number of images."""
    return {0: torch.export.Dim("batch", min=1)}


def write(encoder: nn.Module, spec: ImageSpec, name: str, format: str, path: Path, about: dict[str, Any]) -> str:
    """Write timm's state dict."""
    if not isinstance(encoder, TimmModel):
        raise UserError(f"{name} is not a timm model; export it as safetensors, torch or onnx")
    save_tensors(path, encoder.model.state_dict(), about)
    note = "" if encoder.stem == "standard" else "; its stem is the small one, see docs/encoders.md"
    made, more = encoder.made_by
    given = {"num_classes": 0, "in_chans": spec.channels} | ({"img_size": spec.size} | more if more else {})
    return f"load: timm.create_model({made!r}, {', '.join(f'{k}={v!r}' for k, v in given.items())}){note}"
