"""Where the teacher of `distill` comes from: a run folder, a file of weights, or timm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from selfsup.base.paths import user_path
from selfsup.base.turns import own_turn
from selfsup.encoders import build_encoder
from selfsup.encoders.image import spec_of_pretraining
from selfsup.encoders.image.timm_model import TimmModel
from selfsup.encoders.weights import read_weights
from selfsup.errors import UserError
from selfsup.spec import ImageSpec, read_spec
from selfsup.tasks.image.distill_teacher import Teacher


def load_teacher(
    name: str, pretrained: bool, weights: str | None, size: int, student: ImageSpec | None = None
) -> Teacher:
    """Return the teacher of a run folder, of a file of weights of ours, or of timm, with weights.

    Raises `UserError` for one without weights, or for weights that do not fit it or cannot be had, and for one that
    cannot take the images of a `student` (None: any).
    """
    path = user_path(name, "--teacher")
    with own_turn(), torch.random.fork_rng(devices=[]):
        if path.exists():
            if pretrained or weights is not None:
                raise UserError(f"--teacher {name} brings its weights: leave the options of a model of timm out")
            encoder = _of_run(path / "encoder.safetensors" if path.is_dir() else path)
        elif weights is not None:
            spec = spec_of_pretraining(name)
            if spec is None:
                raise UserError(f"--teacher-weights is for models of timm, and {name} is not one: give its run folder")
            encoder = TimmModel(name, spec, weights=read_weights(user_path(weights, "--teacher-weights")))
        elif pretrained:
            encoder = build_encoder(name, spec_of_pretraining(name) or ImageSpec.of(224, 3), True)
        else:
            raise UserError(
                f"an untrained {name} has nothing to teach: add --teacher-pretrained or --teacher-weights "
                "FILE, or give the folder of a run"
            )
    found = Teacher(encoder, name, size)
    if student is not None:
        _check_images(found, student)
    return found


def _check_images(teacher: Teacher, student: ImageSpec) -> None:
    """Raise `UserError` for images of a student that do not become images of the teacher."""
    name, spec = teacher.name, teacher.spec
    if student.channels not in (1, spec.channels) and (student.channels, spec.channels) != (3, 1):
        raise UserError(
            f"{name} sees {spec.channels} channels, not {student.channels}: give --channels {spec.channels}"
        )
    if spec.range not in (None, student.range):
        raise UserError(f"{name} was trained on other values: give --range {spec.range[0]:g}:{spec.range[1]:g}")


def _of_run(path: Path) -> Any:
    """Return the encoder of a file that `pretrain` or `export` wrote."""
    weights = _read(path)
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()["selfsup"])
        spec, name = read_spec(about.get("spec", about), path.parent), about["encoder"]
    except (KeyError, ValueError, TypeError, AttributeError):
        raise UserError(
            f"{path} does not say of what model it is: give --teacher NAME --teacher-weights {path}"
        ) from None
    if not isinstance(spec, ImageSpec):
        raise UserError(f"{path} is an encoder of {spec.samples}, which cannot teach one of images")
    shapes = {key: tensor.shape for key, tensor in weights.items()}
    for keep_stem in (False, True):  # as encoders that began pretrained do
        encoder = build_encoder(name, spec, keep_stem=keep_stem)
        if shapes == {key: tensor.shape for key, tensor in encoder.state_dict().items()}:
            encoder.load_state_dict(weights)
            return encoder
    raise UserError(f"{path} holds more than a {name}, as those of some tasks do: give another teacher")


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"cannot read {path} ({str(error).splitlines()[0]}): give another --teacher") from None
