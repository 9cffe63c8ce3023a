"""A frozen pretrained model of timm as a baseline, from weights that are on this machine already."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from selfsup.encoders.image import spec_of_pretraining
from selfsup.encoders.image.timm_model import TimmModel
from selfsup.errors import UserError, unknown
from selfsup.evaluation.frozen import FrozenEncoder


def load_reference(name: str) -> FrozenEncoder:
    """Return a timm model with the pretrained weights that the Hugging Face cache holds; nothing is downloaded.

    It takes images of the size and with the normalization of its own pretraining. Only safetensors are read, which
    cannot run code.

    Raises:
        UserError: for an unknown model, and where its weights are not here.
    """
    import timm
    from safetensors.torch import load_file
    from timm.models import get_pretrained_cfg

    if not timm.is_model(name.split(".")[0]):
        raise unknown("model of timm", name, timm.list_models(pretrained=True))
    path, spec = _cached(getattr(get_pretrained_cfg(name), "hf_hub_id", None)), spec_of_pretraining(name)
    if spec is None or path is None:
        raise UserError(
            f"no pretrained weights of {name} on this machine; fetch them once with "
            f"python -c \"import timm; timm.create_model('{name}', pretrained=True)\", or leave out --reference"
        )
    return FrozenEncoder(name, TimmModel(name, spec, weights=load_file(path)).eval(), spec)


def _cached(repository: Any) -> Path | None:
    """Return the newest cached safetensors file of a repository of the Hugging Face hub."""
    from huggingface_hub import constants

    if not repository:
        return None
    root = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}" / "snapshots"
    found = [path for path in root.glob("*/model.safetensors") if path.exists()]
    return max(found, key=os.path.getmtime, default=None)
