"""The convolutional networks of deep Q-learning, which keep the place of everything."""

from __future__ import annotations

from torch import Tensor, nn

from selfsup.encoders.image.sizes import check_size
from selfsup.errors import UserError
from selfsup.spec import ImageSpec

LAYERS = {  # from so many pixels on: channels, kernel, stride and padding of each layer, and the dimension
    128: (((32, 8, 4, 0), (64, 4, 2, 0), (128, 4, 2, 0), (64, 3, 1, 0)), 256),
    64: (((32, 8, 4, 0), (64, 4, 2, 0), (64, 3, 1, 0)), 512),
    8: (((16, 3, 2, 1), (32, 3, 2, 1), (32, 3, 2, 1)), 0),
}


class NatureCNN(nn.Module):
    """Convolutions with ReLU and without normalization, then a linear layer on the flattened map.

    From 128 pixels on the network of Anand et al. (2019, no downsampling), from 64 on that of Mnih et al. (2015). For
    smaller images, from 8 pixels on, three small convolutions of stride 2, whose flattened map is the representation.
    """

    def __init__(self, spec: ImageSpec) -> None:
        super().__init__()
        if spec.size < min(LAYERS):
            raise UserError(f"nature-cnn needs images of at least {min(LAYERS)} pixels: give another --size")
        self.spec = spec
        layers, dim = next(LAYERS[least] for least in LAYERS if spec.size >= least)
        parts, before, side = list[nn.Module](), spec.channels, spec.size
        for width, kernel, stride, padding in layers:
            parts.append(nn.Sequential(nn.Conv2d(before, width, kernel, stride, padding), nn.ReLU(inplace=True)))
            before, side = width, (side + 2 * padding - kernel) // stride + 1
        self.convolutions, whole = nn.Sequential(*parts), before * side**2
        self.linear: nn.Module = nn.Linear(whole, dim) if dim else nn.Identity()
        self.dim = dim or whole
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.orthogonal_(layer.weight, nn.init.calculate_gain("relu"))
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def maps(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W'): the last map."""
        check_size(self.spec, x)
        return self.convolutions(x)

    def stages(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W) -> the map of each layer (B, C', H', W')."""
        maps = []
        for layer in self.convolutions:
            x = layer(x)
            maps.append(x)
        return maps

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, dim)."""
        return self.linear(self.maps(x).flatten(1))

    def with_maps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) -> the representation (B, dim), and the map before the last one (B, C', H', W')."""
        check_size(self.spec, x)
        middle = self.convolutions[:-1](x)
        return self.linear(self.convolutions[-1](middle).flatten(1)), middle
