"""Pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from selfsup.data import Broken, Files, ImageSpec
from selfsup.errors import UserError, unknown
from selfsup.views import Crop, ImageViews, centre


class Images:
    """`ImageSpec`: square pictures, (B, C, H, W) float."""

    small = "convnet"
    baseline, alike = "raw pixels", True
    formats = {"safetensors": ".safetensors", "timm": ".safetensors", "torch": ".pt2", "onnx": ".onnx"}  # noqa: RUF012
    about = {  # noqa: RUF012
        "raw pixels": "averaged down to at most 32 × 32",
        "PCA": "the first 64 principal components of those pixels, from the training part without its labels",
    }

    def read_spec(self, recipe: Mapping[str, Any], folder: Path) -> ImageSpec:
        """Return the spec, whose values may have been damaged."""
        size, channels, mean, std = (recipe[key] for key in ("size", "channels", "mean", "std"))
        if not (type(size) is int and type(channels) is int):
            raise ValueError("a size, the channels or the steps are no whole number")
        sound = (
            0 < size <= 4096
            and 0 < channels <= 64
            and len(mean) == len(std) == channels
            and all(math.isfinite(value) for value in mean)
            and all(0 < value < math.inf for value in std)
        )
        if not sound:
            raise ValueError("it has an impossible spec")
        return ImageSpec(size, channels, tuple(mean), tuple(std))

    def save(self, spec: ImageSpec, folder: Path) -> None:
        """Write nothing: the recipe says it all."""

    def words(self, spec: ImageSpec) -> tuple[str, str]:
        """Return the size and the channels."""
        return "pictures", f"{spec.size} × {spec.size} pixels, {spec.channels} channels"

    def check(self, source: Any, spec: ImageSpec) -> None:
        """Raise `UserError` for channels that cannot be made, and for what are no pictures."""
        if getattr(source, "modality", "image") != "image":
            raise UserError(f"{source.name} holds no pictures, which this encoder takes")
        source.spec(spec.size, spec.channels)

    def build_encoder(self, name: str, spec: ImageSpec, pretrained: bool) -> Any:
        """Return `convnet`, `mlp`, `vit`, `vit-mini`, or any image model of timm."""
        if name in ("convnet", "mlp"):
            from selfsup.encoders.convnet import ConvNet
            from selfsup.encoders.mlp import Mlp

            if pretrained:
                raise UserError(f"{name} has no pretrained weights")
            return ConvNet(spec) if name == "convnet" else Mlp(spec)
        import timm

        from selfsup.encoders.timm_model import VITS, TimmModel, small_vit

        if name in VITS:
            if pretrained:
                raise UserError(f"{name} has no pretrained weights")
            return small_vit(name, spec)
        if not timm.is_model(name.split(".")[0]):
            raise unknown("encoder", name, ["convnet", "mlp", *VITS, *timm.list_models()])
        return TimmModel(name, spec, pretrained)

    def plain_views(self, spec: ImageSpec) -> ImageViews:
        """Return the centre of the picture, unchanged."""
        return ImageViews(spec, {"x": centre(spec.size)})

    def labelled_views(self, spec: ImageSpec, pad: int, flip: float) -> ImageViews:
        """Return shifted, flipped pictures and their labels."""
        return ImageViews(spec, {"x": Crop(spec.size, pad=pad, flip=flip)}, labels=True)

    def several_views(self, spec: ImageSpec) -> tuple[ImageViews, str]:
        """Return random crops."""
        return (
            ImageViews(spec, {"x": Crop(spec.size, scale=(0.5, 1.0))}),
            "random crops of half to all of the picture",
        )

    def features(
        self, parts: tuple[Any, ...], spec: ImageSpec, quiet: bool
    ) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Return the pixels."""
        from selfsup.evaluation.features import extract

        return [extract(self.baseline_module(), part, spec, quiet=quiet) for part in parts]

    def baseline_module(self) -> nn.Module:
        """Return the pixels."""
        from selfsup.evaluation.frozen import Pixels

        return Pixels()

    def draw(self, x: Tensor, spec: ImageSpec) -> tuple[Image.Image | None, str]:
        """Return the picture."""
        from selfsup.reports.pictures import to_picture

        return to_picture(x, spec), ""

    def example(self, spec: ImageSpec) -> tuple[Tensor, dict[int, Any]]:
        """Return black pictures; any number of them."""
        return torch.zeros(2, spec.channels, spec.size, spec.size), {0: torch.export.Dim("batch", min=1)}

    def export(
        self, encoder: nn.Module, spec: ImageSpec, name: str, format: str, path: Path, about: dict[str, Any]
    ) -> str:
        """Write timm's state dict."""
        from selfsup.encoders.timm_model import TimmModel
        from selfsup.train.checkpoint import save_tensors

        if not isinstance(encoder, TimmModel):
            raise UserError(f"{name} is no timm model; export it as safetensors, torch or onnx")
        save_tensors(path, encoder.model.state_dict(), about)
        note = "" if encoder.stem == "standard" else "; its stem is the small one, see docs/encoders.md"
        made, more = encoder.made_by
        given = {"num_classes": 0, "in_chans": spec.channels} | ({"img_size": spec.size} | more if more else {})
        return f"load: timm.create_model({made!r}, {', '.join(f'{k}={v!r}' for k, v in given.items())}){note}"

    def query(self, text: str) -> Files:
        """Return the picture file."""
        import os

        if not os.path.isfile(text):
            raise UserError(f"{text!r} is no row number, no path of the file and no picture file")
        folder, name = os.path.split(os.path.abspath(text))
        source = Files(folder, pa.array([os.fsencode(name)], pa.binary()))
        try:
            source.read(0)
        except Broken as error:
            raise UserError(f"cannot read the picture {text!r}: {error}") from None
        return source
