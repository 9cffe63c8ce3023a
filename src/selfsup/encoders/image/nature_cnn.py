"""The convolutional networks of deep Q-learning, which keep the place of everything."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from selfsup.errors import UserError
from selfsup.spec import ImageSpec

LAYERS = {  # from so many pixels on: channels, kernel and stride of each layer, and the dimension
    128: (((32, 8, 4), (64, 4, 2), (128, 4, 2), (64, 3, 1)), 256),
    64: (((32, 8, 4), (64, 4, 2), (64, 3, 1)), 512),
    16: (((16, 3, 2), (32, 3, 2), (32, 3, 2)), 256),
}


class NatureCNN(nn.Module):
    """Convolutions with ReLU and without normalization, then a linear layer on the flattened map.

    From 128 pixels on the network of Anand et al. (2019, appendix A), from 64 on that of Mnih et al. (2015), and for
    smaller images that of Mnih et al. (2013) with half the kernel and stride in its first layer. At least 16 pixels.
    """

    def __init__(self, spec: ImageSpec) -> None:
        super().__init__()
        if spec.size < min(LAYERS):
            raise UserError(f"nature-cnn needs images of at least {min(LAYERS)} pixels: give another --size")
        self.spec = spec
        layers, self.dim = next(LAYERS[least] for least in LAYERS if spec.size >= least)
        widths = [spec.channels, *(width for width, _, _ in layers)]
        self.convolutions = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(before, after, kernel, stride), nn.ReLU(inplace=True))
                for (before, after), (_, kernel, stride) in zip(pairwise(widths), layers, strict=True)
            )
        )
        side = spec.size
        for _, kernel, stride in layers:
            side = (side - kernel) // stride + 1
        self.linear = nn.Linear(widths[-1] * side**2, self.dim)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.orthogonal_(layer.weight, nn.init.calculate_gain("relu"))
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def maps(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W'): the last map."""
        return self.convolutions(x)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, dim)."""
        return self.linear(self.maps(x).flatten(1))

    def with_maps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) -> the representation (B, dim), and the map before the last one (B, C', H', W')."""
        middle = self.convolutions[:-1](x)
        return self.linear(self.convolutions[-1](middle).flatten(1)), middle
