"""Encoders of images for timm (`selfsup.exporters.Exporter`)."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from selfsup.encoders.image.timm_model import TimmModel
from selfsup.errors import UserError
from selfsup.exporters.batch_only import program as program
from selfsup.spec import ImageSpec
from selfsup.train.checkpoint import save_tensors

OTHERS = "use selfsup.load(run), or export it as torch or onnx, or as safetensors for your own code"
FORMATS = {"timm": ".safetensors"}


def open_dims(spec: ImageSpec) -> dict[int, Any]:
    """Return the batch: any number of images."""
    return {0: torch.export.Dim("batch", min=1)}


def write(encoder: nn.Module, spec: ImageSpec, name: str, format: str, path: Path, about: dict[str, Any]) -> str:
    """Write timm's state dict, and return lines that make the same function of it with timm alone.

    The lines were tried: the outputs of the model that they make are compared. A stem that timm does not have (see
    `TimmModel`) is a line of its own. Where only its stride differs, so that its weights would fit timm's own layer
    and give other outputs without a word, it gets another name.
    """
    if not isinstance(encoder, TimmModel):
        raise UserError(f"the encoder of {about['task']} with {name} is not a timm model; {OTHERS}")
    (made, options), state = encoder.made_by, encoder.model.state_dict()
    lines = [f"model = timm.create_model({', '.join([repr(made), *(f'{k}={v!r}' for k, v in options.items())])})"]
    with torch.random.fork_rng(devices=[]):
        model = timm.create_model(made, **options)
    for where, code in encoder.replaced.items():
        module, own = encoder.model.get_submodule(where), model.get_submodule(where)
        if isinstance(module, nn.Conv2d) and module.weight.shape == own.weight.shape:
            code, module = f"torch.nn.Sequential({code})", nn.Sequential(module)
            state = {_moved(key, where): value for key, value in state.items()}
        model.set_submodule(where, copy.deepcopy(module))
        lines.append(f"model.set_submodule({where!r}, {code})")
    try:
        model.load_state_dict(state)
        x = torch.randn(2, *spec.example(1).shape[1:], generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            here, there = encoder(x), model.eval()(x)
        same = bool((here - there).abs().max() <= 1e-4 * here.abs().max())
    except (RuntimeError, TypeError, ValueError, AttributeError):
        same = False
    if not same:
        raise UserError(f"timm cannot make the model that {name} is here, with its {encoder.stem} stem; {OTHERS}")
    load = f"model.load_state_dict(load_file({str(path)!r}))"
    imports = f"import timm{', torch' if encoder.replaced else ''}; from safetensors.torch import load_file"
    code = "; ".join([imports, *lines, load, "model.eval()"])
    save_tensors(path, state, about | {"load": code})
    note = "  # with the stem for small images, which timm's own model does not have" if encoder.replaced else ""
    return f"load: {code}{note}"


def _moved(key: str, where: str) -> str:
    """Return the key of a tensor after its layer `where` became the first of a sequence."""
    return f"{where}.0{key[len(where) :]}" if key.startswith(f"{where}.") else key
