"""Every image model of timm as an encoder, with a stem that suits small pictures."""

from __future__ import annotations

import inspect
from typing import Any

import timm
import torch
from torch import Tensor, nn

from selfsup.data import ImageSpec
from selfsup.errors import UserError

SMALL = 64  # pixels: up to here the stem is the small one


class TimmModel(nn.Module):
    """A timm model without its classifier: `forward` (B, C, H, W) -> (B, dim), pooled as timm pools it.

    Convolutional models have `maps` (B, C, H, W), transformers `tokens` (B, N, dim) with the prefix tokens first.

    Pictures of at most 64 pixels get a stem that keeps their detail (`stem` = "small"): the first strided convolution
    becomes 3×3 with stride 1 and the max-pooling behind it goes (Chen et al., 2020, appendix B.9); transformers cut
    at least 7 × 7 patches. Models whose stem cannot be changed so keep their own (`stem` = "standard").
    `weights` are taken instead of timm's pretrained ones, which it would download.
    """

    def __init__(
        self, name: str, spec: ImageSpec, pretrained: bool = False, weights: dict[str, Tensor] | None = None
    ) -> None:
        super().__init__()
        self.spec = spec
        try:
            with torch.device("meta"):
                takes = inspect.signature(type(timm.create_model(name)).__init__).parameters
            options: dict[str, Any] = {"num_classes": 0, "in_chans": spec.channels}
            if weights is not None:
                pretrained, options["pretrained_cfg_overlay"] = True, {"state_dict": weights}
            if "img_size" in takes:
                options["img_size"] = spec.size
            self.model, self.stem = timm.create_model(name, pretrained=pretrained, **options), "standard"
            if spec.size <= SMALL and not pretrained:
                self._shrink_stem(name, spec, options, takes)
            self.dim, shape = _measure(self.model, spec)
        except (RuntimeError, ValueError, AssertionError, TypeError, OSError, ZeroDivisionError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            if pretrained and isinstance(error, OSError):
                raise UserError(f"cannot get the pretrained weights of {name}: {reason}") from error
            raise UserError(
                f"{name} cannot take {spec.size} × {spec.size} pictures: give another --size or --encoder ({reason})"
            ) from error
        self.has_tokens, self.has_maps = len(shape) == 3, len(shape) == 4
        self._channels_last = self.has_maps and getattr(self.model, "output_fmt", "NCHW") == "NHWC"

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, dim)."""
        pooled: Tensor = self.model(x)
        return pooled

    def maps(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, dim, H', W'), where the model is convolutional."""
        if not self.has_maps:
            raise UserError("this encoder has no feature maps; take a convolutional one, for example resnet18")
        features: Tensor = self.model.forward_features(x)
        return features.permute(0, 3, 1, 2) if self._channels_last else features

    def tokens(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, N, dim), where the model is a transformer."""
        if not self.has_tokens:
            raise UserError("this encoder has no tokens; take a transformer, for example vit_tiny_patch16_224")
        features: Tensor = self.model.forward_features(x)
        return features

    def _shrink_stem(self, name: str, spec: ImageSpec, options: dict[str, Any], takes: Any) -> None:
        standard = self.model
        try:
            if "patch_size" in takes:
                patch = _small_patch(spec.size) if "img_size" in takes else max(spec.size // 32, 1)
                self.model = timm.create_model(name, patch_size=patch, **options)
            else:
                self.model = timm.create_model(name, **options)
                _unstride(self.model)
            _measure(self.model, spec)
            self.stem = "small"
        except (RuntimeError, ValueError, AssertionError, TypeError):
            self.model = standard


def _small_patch(size: int) -> int:
    return max(patch for patch in range(1, size // 7 + 1) if size % patch == 0)


def _unstride(model: nn.Module) -> None:
    """Replace the first strided convolution by a 3×3 one with stride 1, and drop the max-pooling right behind it."""
    strided = [name for name, m in model.named_modules() if isinstance(m, nn.Conv2d) and max(m.stride) > 1]
    if not strided:
        return
    names = [name for name, _ in model.named_modules()]
    until = names.index(strided[1]) if len(strided) > 1 else len(names)
    for name in names[names.index(strided[0]) : until]:
        if isinstance(model.get_submodule(name), nn.MaxPool2d):
            _replace(model, name, nn.Identity())
            break
    old = model.get_submodule(strided[0])
    assert isinstance(old, nn.Conv2d)
    new = nn.Conv2d(old.in_channels, old.out_channels, 3, padding=1, groups=old.groups, bias=old.bias is not None)
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    _replace(model, strided[0], new)


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


@torch.no_grad()
def _measure(model: Any, spec: ImageSpec) -> tuple[int, torch.Size]:
    """Return the width of the pooled output and the shape of the features before pooling."""
    model.eval()
    x = torch.zeros(2, spec.channels, spec.size, spec.size)
    pooled, features = model(x), model.forward_features(x)
    model.train()
    if pooled.ndim != 2:
        raise ValueError(f"its output has the shape {tuple(pooled.shape)}")
    return int(pooled.shape[1]), features.shape
