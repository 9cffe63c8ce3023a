"""Several views of each sample: embedded, and shown as panels."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.base.distributed import gather
from selfsup.losses import full
from selfsup.nn.heads import each_view
from selfsup.task import Batch, Panel


def all_crops(embed: Callable[[Tensor], Tensor], batch: Batch) -> Tensor:
    """Return the embeddings of `x` and `local` over the global batch (V, N, d), large crops first, at least float32."""
    z = torch.cat([each_view(embed, batch[key]) for key in ("x", "local")])
    return full(gather(z.transpose(0, 1)).transpose(0, 1))


@torch.no_grad()
def view_panels(*groups: Tensor, embed: Callable[[Tensor], Tensor] | None = None) -> list[list[Panel]]:
    """Return one row of views for each sample, from groups (B, V, C, H, W): large views first, then local ones.

    With `embed`, captions name the nearest other view within the first group, which should be of the same image.
    """
    captions = [[f"image {row}, view {view}" for view in range(groups[0].shape[1])] for row in range(len(groups[0]))]
    if embed is not None:
        z = F.normalize(each_view(embed, groups[0]).transpose(0, 1).flatten(0, 1).float(), dim=1)
        cosine, nearest = (z @ z.T).fill_diagonal_(-2).max(1)
        for at, (near, value) in enumerate(zip(nearest.tolist(), cosine.tolist(), strict=True)):
            row, view = divmod(at, groups[0].shape[1])
            captions[row][view] += f"; nearest: image {near // groups[0].shape[1]}; cosine {value:.2f}"
    rows = []
    for row, large in enumerate(captions):
        local = [f"image {row}; local view {view}" for group in groups[1:] for view in range(group.shape[1])]
        images = [image for group in groups for image in group[row]]
        rows.append([Panel(image, caption) for image, caption in zip(images, [*large, *local], strict=True)])
    return rows
