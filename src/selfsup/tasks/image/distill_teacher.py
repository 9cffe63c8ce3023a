"""The teacher of `distill`: a frozen encoder with weights from elsewhere, and what it makes of a student's images."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from selfsup.base.paths import user_path
from selfsup.base.turns import own_turn
from selfsup.encoders import build_encoder
from selfsup.encoders.image import spec_of_pretraining
from selfsup.encoders.image.timm_model import TimmModel
from selfsup.encoders.weights import read_weights, weights_digest
from selfsup.errors import UserError
from selfsup.nn.constants import mean_std
from selfsup.spec import ImageSpec, read_spec

GREY = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R 601)


class Teacher:
    """A frozen encoder; it is not a module, so that it is in no state, no optimizer and no export.

    `dim` and `width` are the numbers of channels of its representation and of its places, 0 where it has none; `size`
    is the side in pixels at which it sees images.
    """

    def __init__(self, encoder: Any, name: str, size: int) -> None:
        self.encoder = encoder.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.name, self.size = name, size or encoder.spec.size
        self.spec: ImageSpec = encoder.spec
        try:
            with torch.no_grad():
                z, maps = represent(encoder, torch.zeros(2, self.spec.channels, self.size, self.size))
        except (RuntimeError, AssertionError, ValueError) as error:
            raise UserError(
                f"the teacher {name} cannot take {self.size} pixels: give another --teacher-size"
            ) from error
        self.dim, self.width = z.shape[1], 0 if maps is None else maps.shape[1]

    def digest(self) -> str:
        """Return a hash of the weights."""
        return weights_digest(self.encoder)

    def describe(self) -> str:
        """Return its name, its size and the images that it sees."""
        count = sum(parameter.numel() for parameter in self.encoder.parameters())
        return f"{self.name}, {count:,} parameters, sees {self.size} × {self.size} pixels"

    @torch.no_grad()
    def __call__(self, x: Tensor, spec: ImageSpec, places: bool) -> tuple[Tensor, Tensor | None]:
        """Return the representation (B, dim) and, with `places`, the map (B, width, h, w) of a student's images.

        `x` (B, C, H, W) are normalized by the student's `spec`; the teacher gets them with its own mean and std, and in
        its own size.
        """
        weights = next(self.encoder.parameters())
        if weights.device != x.device:
            self.encoder.to(x.device)
        mean, std = mean_std(spec, x)
        pixels = (x * std + mean).to(weights.dtype)
        if spec.channels == 3 and self.spec.channels == 1:
            pixels = (pixels * pixels.new_tensor(GREY).view(-1, 1, 1)).sum(1, keepdim=True)
        elif spec.channels != self.spec.channels:
            pixels = pixels.expand(-1, self.spec.channels, -1, -1)
        if pixels.shape[-1] != self.size:
            pixels = F.interpolate(pixels, (self.size, self.size), mode="bilinear", antialias=True)
        mean, std = mean_std(self.spec, pixels)
        z, maps = represent(self.encoder, (pixels - mean) / std, places)
        return z.to(x.dtype), None if maps is None else maps.to(x.dtype)


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


def has_places(encoder: Any) -> bool:
    """Return whether `represent` gives a map of an encoder's images."""
    maps = hasattr(encoder, "with_maps") and getattr(encoder, "has_maps", True)
    return bool(getattr(encoder, "patch", 0)) or bool(maps)


def represent(encoder: Any, x: Tensor, places: bool = True) -> tuple[Tensor, Tensor | None]:
    """(B, C, H, W) -> the representation (B, dim) and a map of the places (B, C', h, w), None without or for no map.

    Of a transformer the map has its patch tokens, of a convolutional network it is that of the stage before the last.
    """
    if not (places and has_places(encoder)):
        return encoder(x), None
    if not getattr(encoder, "patch", 0):
        return encoder.with_maps(x)
    tokens = encoder.tokens(x)
    side = math.isqrt(tokens.shape[1] - encoder.prefix)
    return encoder.pool(tokens), tokens[:, encoder.prefix :].mT.unflatten(2, (side, side))


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
