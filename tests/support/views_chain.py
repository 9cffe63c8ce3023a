"""A view made by torchvision's functional operations from the parameters that our engine drew: the yardstick."""

import torch
import torchvision.transforms.v2.functional as F
from torchvision.transforms import InterpolationMode

from selfsup.views.image import draw


def appear(x, color):
    """Change x (C, H, W), float in 0..1, as color (8,) says, by torchvision."""
    order, brightness, contrast, saturation, hue, gray, sigma, solarize = color.tolist()
    changes = (
        lambda v: F.adjust_brightness(v, brightness),
        lambda v: F.adjust_contrast(v, contrast),
        lambda v: F.adjust_saturation(v, saturation),
        lambda v: F.adjust_hue(v, hue),
    )
    if order >= 0:
        for op in draw.ORDERS[int(order)]:
            x = changes[op](x)
    if gray:
        x = F.rgb_to_grayscale(x, num_output_channels=3)
    if sigma:
        kernel = min(23, x.shape[-1] // 2 * 2 - 1)
        x = F.gaussian_blur(x, [kernel, kernel], [sigma, sigma])
    return F.solarize(x, 0.5) if solarize else x


def crop(image, box, flip, size, bicubic=False):
    """Cut a whole-pixel box out of image (H, W, C) uint8 and resize it -> (C, size, size) float in 0..1."""
    mode = InterpolationMode.BICUBIC if bicubic else InterpolationMode.BILINEAR
    top, left, high, wide = (int(v) for v in box)
    x = F.resized_crop(torch.from_numpy(image.copy()).permute(2, 0, 1), top, left, high, wide, [size, size], mode, True)
    return (F.horizontal_flip(x) if flip else x).float() / 255


def view(image, box, flip, size, color, bicubic=False):
    """Return the whole chain (C, size, size) float in 0..1."""
    return appear(crop(image, box, flip, size, bicubic), color)
