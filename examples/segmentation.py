"""A head of torchvision on a pretrained backbone: which pixels show a thing, from eight labelled images.

Frames of the generated videos `moving` are the images; of a few of them the masks are used.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torchvision.models.segmentation.fcn import FCNHead

import selfsup

videos = selfsup.open_data("moving")
x = np.concatenate([videos.frames(i, np.array([0, 16])) for i in range(200)])  # (400, 72, 72, 3) uint8
run = selfsup.pretrain(x, task="denseclr", encoder="convnet", steps=200, batch_size=32, size=64, out="runs/moving")

backbone = selfsup.load_backbone(run).requires_grad_(False)  # images -> maps, finest first
print(backbone.feature_info.channels(), backbone.feature_info.reduction())
spec = backbone.spec
mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (spec.mean, spec.std))


def frames(numbers):
    """Return normalized images (n, 3, 64, 64) and masks (n, 64, 64) of things."""
    drawn = videos.conform(selfsup.spec.ClipSpec.of(spec.size))  # drawn in this size
    images = torch.from_numpy(np.concatenate([drawn.frames(i, np.array([0])) for i in numbers]))
    masks = torch.from_numpy(np.concatenate([drawn.masks(i, np.array([0])) for i in numbers]))
    return (images.permute(0, 3, 1, 2) / 255 - mean) / std, (masks > 0).long()


head = FCNHead(backbone.feature_info.channels()[-1], 2)
optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2)
images, masks = frames(range(200, 208))  # none of which was seen in pretraining
features = backbone(images)[-1]
for _ in range(100):
    optimizer.zero_grad()
    logits = F.interpolate(head(features), masks.shape[1:], mode="bilinear")
    F.cross_entropy(logits, masks, weight=torch.tensor([1.0, 4.0])).backward()  # things are a twentieth of the pixels
    optimizer.step()

images, masks = frames(range(300, 340))
with torch.no_grad():
    logits = F.interpolate(head.eval()(backbone(images)[-1]), masks.shape[1:], mode="bilinear")
found, true = logits.argmax(1) == 1, masks == 1
print(f"IoU of things on {len(images)} other frames: {(found & true).sum() / (found | true).sum():.1%}")
