"""The patches of images, and masks of them that are drawn from each sample's key."""

from __future__ import annotations

import torch
from torch import Tensor

from selfsup.errors import UserError
from selfsup.nn import noise


def grid_of(encoder: object) -> int:
    """Return the patches per side of an encoder that can leave patches out; raise `UserError` for any other."""
    grid = int(getattr(encoder, "grid", 0))
    if not grid:
        raise UserError(
            "this task masks patches, which needs a plain vision transformer: --encoder vit, or for example "
            "vit_tiny_patch16_224 or vit_small_patch16_dinov3 of timm"
        )
    return grid


def patchify(x: Tensor, patch: int) -> Tensor:
    """(B, C, H, W) -> (B, N, patch² · C): the pixels of each patch."""
    count, channels, height, width = x.shape
    cells = x.reshape(count, channels, height // patch, patch, width // patch, patch)
    return cells.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def unpatchify(patches: Tensor, channels: int) -> Tensor:
    """(B, N, patch² · C) -> (B, C, H, W), square images."""
    grid, patch = round(patches.shape[1] ** 0.5), round((patches.shape[2] / channels) ** 0.5)
    cells = patches.reshape(-1, grid, grid, patch, patch, channels)
    return cells.permute(0, 5, 1, 3, 2, 4).reshape(-1, channels, grid * patch, grid * patch)


def only(x: Tensor, mask: Tensor) -> Tensor:
    """Return images (B, C, H, W) whose patches are 0, the mean colour, where `mask` (B, N) is false."""
    grid, (height, width) = round(mask.shape[1] ** 0.5), x.shape[2:]
    seen = mask.view(-1, 1, grid, grid)
    return torch.where(seen.repeat_interleave(height // grid, 2).repeat_interleave(width // grid, 3), x, 0)


def mask_of(places: Tensor, count: int) -> Tensor:
    """(B, K) int64 -> (B, count) bool: true at `places`."""
    return torch.zeros(len(places), count, dtype=torch.bool, device=places.device).scatter(1, places, True)


def take(tokens: Tensor, places: Tensor) -> Tensor:
    """(B, N, d) and (B, K) int64 -> (B, K, d)."""
    return tokens.gather(1, places[..., None].expand(-1, -1, tokens.shape[2]))


def lowest(priority: Tensor, count: Tensor | int) -> Tensor:
    """Return (B, N) bool: true at the `count` places of lowest priority; `count` may differ by sample, (B,)."""
    limit = count.view(-1, 1) if isinstance(count, Tensor) else count
    return priority.argsort(1).argsort(1) < limit


def places_of(mask: Tensor, count: int) -> Tensor:
    """(…, N) bool with `count` true -> (…, count) int64: their places in ascending order."""
    return mask.int().sort(dim=-1, descending=True, stable=True).indices[..., :count]


def rectangles(key: Tensor, height: Tensor, width: Tensor, grid: int, stream: int = 0) -> Tensor:
    """Return (B, M, N) bool: rectangles anywhere in the grid, of `height` and `width` (B, M) int64 in patches."""
    where = noise.uniform(key, 2, height.shape[1], stream=stream)
    top, left = (where[:, 0] * (grid - height + 1)).long(), (where[:, 1] * (grid - width + 1)).long()
    line = torch.arange(grid, device=key.device)
    rows = (line >= top[..., None]) & (line < (top + height)[..., None])
    columns = (line >= left[..., None]) & (line < (left + width)[..., None])
    return (rows[..., :, None] & columns[..., None, :]).flatten(2)


def covered_first(blocks: Tensor, key: Tensor, stream: int = 0) -> Tensor:
    """(B, M, N) bool -> priorities (B, N): patches of the first block, of the second, …, then the others at random.

    Its `lowest` are a union of blocks with exactly the required number of patches; the last block may be incomplete.
    """
    number = torch.arange(blocks.shape[1], device=key.device)[None, :, None]
    first = torch.where(blocks, number, blocks.shape[1]).amin(1)
    return first + noise.uniform(key, blocks.shape[2], stream=stream)


def blocks(key: Tensor, grid: int, count: Tensor | int, stream: int = 0) -> Tensor:
    """Return (B, N) bool, `count` of them true: up to 8 random blocks (BEiT, Bao et al., 2022, algorithm 1).

    A block covers 2% to 15% of the image, and its height is 0.3 to 1 / 0.3 of its width.
    """
    u = noise.uniform(key, 2, 8, stream=stream)
    area, ratio = (0.02 + 0.13 * u[:, 0]) * grid**2, 0.3 ** (2 * u[:, 1] - 1)
    height, width = ((area * shape).sqrt().round().long().clamp(1, grid) for shape in (ratio, 1 / ratio))
    covered = rectangles(key, height, width, grid, stream + 1)
    return lowest(covered_first(covered, key, stream + 2), count)


def one_of_two_masked(key: Tensor, grid: int, least: float, most: float) -> Tensor:
    """Return (2B, N) bool for two crops of each image: `blocks` in one, a fraction from `least` to `most` of it."""
    u = noise.uniform(key, 2)
    count = ((least + (most - least) * u[:, 0]) * grid**2).round().long().clamp_min(1)
    masked = blocks(key, grid, count, stream=1)
    first = u[:, 1:] < 0.5
    return torch.cat([masked & first, masked & ~first])
