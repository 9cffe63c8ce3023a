"""A discriminator for adversarial tasks."""

from __future__ import annotations

from torch import Tensor, nn

from selfsup.losses import full
from selfsup.nn.norm import BatchNorm
from selfsup.spec import ImageSpec


class Discriminator(nn.Module):
    """Images (B, C, H, W), and codes (B, `code`) if `code` is not 0 -> (B,): the logit of being real.

    Convolutions of stride 2 down to at most 4 × 4, then an MLP, which a code enters at the second layer, with weights
    of its own; without normalization, so that each sample is judged by itself. With `dense`, an MLP on the flattened
    pixels with a BatchNorm without parameters (Donahue et al., 2017, section 4.2): real and generated samples must then
    go through separate calls.
    """

    def __init__(
        self, spec: ImageSpec, code: int = 0, *, width: int = 32, hidden: int = 512, dense: bool = False
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels, side = spec.channels, spec.size
        while side > 4 and not dense:
            wider = min(8 * width, 2 * channels if layers else width)
            layers += [nn.Conv2d(channels, wider, 3, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True)]
            channels, side = wider, (side + 1) // 2
        first = [nn.Flatten(), nn.Linear(channels * side**2, hidden), nn.LeakyReLU(0.2, inplace=True)]
        self.features = nn.Sequential(*layers, *first, nn.Linear(hidden, hidden, bias=not dense))
        self.judge = nn.Sequential(
            BatchNorm(hidden, affine=False) if dense else nn.Identity(),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Linear(hidden, 1),
        )
        self.of_code = nn.Linear(code, hidden, bias=False) if code else None

    def forward(self, x: Tensor, code: Tensor | None = None) -> Tensor:
        """Return the logits."""
        features = self.features(x)
        if self.of_code is not None:
            features = features + self.of_code(code)
        return full(self.judge(features)[:, 0])
