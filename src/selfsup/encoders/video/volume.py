"""3-D ResNets of torchvision (Tran et al., 2018)."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models import video

from selfsup.spec import ClipSpec


class Volume(nn.Module):
    """`r3d_18`, `mc3_18` or `r2plus1d_18`, without the classifier and with random weights."""

    def __init__(self, name: str, spec: ClipSpec) -> None:
        super().__init__()
        self.spec, self.model = spec, getattr(video, name)(weights=None)
        self.dim = int(self.model.fc.in_features)
        self.model.fc = nn.Identity()
        if spec.channels != 3:
            first = self.model.stem[0]
            self.model.stem[0] = nn.Conv3d(
                spec.channels, first.out_channels, first.kernel_size, first.stride, first.padding, bias=False
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C, H, W) -> (B, dim)."""
        return self.model(x.transpose(1, 2))
