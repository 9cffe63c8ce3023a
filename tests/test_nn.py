"""Parts that tasks share."""

import pytest
import torch

from selfsup.nn.image.decoder import Decoder
from selfsup.spec import ImageSpec


@pytest.mark.parametrize("size", [8, 28, 33, 64, 224])
def test_decoder_gives_images_of_the_size(size: int) -> None:
    decoder = Decoder(10, ImageSpec.of(size, 3))
    assert decoder(torch.randn(2, 10)).shape == (2, 3, size, size)

    assert Decoder(10, ImageSpec.of(size, 3), channels=5)(torch.randn(2, 10)).shape[1] == 5
