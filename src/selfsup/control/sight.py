"""What an agent sees: latents of an encoder, or for comparison the true state, or the pixels; and goals in the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selfsup.control.playing import Scene
from selfsup.views.reading import normalized

COARSE = 16  # pixels a side of what the agent sees without an encoder


class Sight:
    """Features (n, d) float32 of scenes: the mean and the scale of the random episodes are 0 and 1.

    The scale is one for all dimensions, so that distances keep their ratios. Goals of `latents` are drawn from a normal
    that is fitted to each dimension (Nair, Pong et al., 2018, section 4.2), but that of the scene stays as it is now
    where the encoder tells it apart (Nair et al., 2019). Other goals are what was seen at random.
    """

    def __init__(self, sees: str, encoder: Any, scenes: Scene) -> None:
        raw: dict[str, Callable[[Scene], NDArray[np.float32]]] = {
            "latents": lambda scene: _encoded(encoder, scene),
            "state": lambda scene: scene.states,
            "pixels": lambda scene: _coarse(scene.frames),
        }
        self.raw, self.fitted = raw[sees], sees == "latents"
        self.scene_dim: int = getattr(encoder, "context_dim", 0)
        chunks = range(0, len(scenes.frames), 256)
        seen = np.concatenate([self.raw(scenes.part(slice(at, at + 256))) for at in chunks])
        self.mean, self.scale = seen.mean(0), max(float(np.sqrt(seen.var(0).mean())), 1e-6)
        self.seen = (seen - self.mean) / np.float32(self.scale)
        self.std, self.dim = self.seen.std(0), seen.shape[1]

    def __call__(self, scene: Scene) -> NDArray[np.float32]:
        """Return the features (n, d)."""
        return ((self.raw(scene) - self.mean) / np.float32(self.scale)).astype(np.float32)

    def code(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what the encoder gives (n, d) where the features are these."""
        return (features * np.float32(self.scale) + self.mean).astype(np.float32)

    def draw(self, generator: np.random.Generator, now: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return an imagined goal for each of the features `now` (n, d)."""
        if not self.fitted:
            return self.seen[generator.integers(len(self.seen), size=len(now))]
        drawn = self.std * generator.standard_normal(now.shape, np.float32)
        own = self.dim - self.scene_dim
        return np.concatenate([drawn[:, :own], now[:, own:]], 1)


@torch.no_grad()
def _encoded(encoder: Any, scene: Scene) -> NDArray[np.float32]:
    def tensor(frames: NDArray[np.uint8]) -> Tensor:
        return normalized(torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2), encoder.spec.image)

    x = tensor(scene.frames)
    code = encoder.conditioned(x, tensor(scene.first)) if hasattr(encoder, "conditioned") else encoder(x)
    found: NDArray[np.float32] = code.float().numpy()
    return found


def _coarse(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the means over parts of the images, at most 16 × 16 of them, from 0 to 1."""
    side = frames.shape[1]
    edges = np.linspace(0, side, min(COARSE, side) + 1).astype(np.int64)[:-1]
    sums = np.add.reduceat(np.add.reduceat(frames.astype(np.float32), edges, 1), edges, 2)
    sizes = np.diff(np.append(edges, side)).astype(np.float32)
    return (sums / (255 * sizes[:, None, None] * sizes[:, None])).reshape(len(frames), -1)
