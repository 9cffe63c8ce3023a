"""An encoder between pixels and an agent: it learns by the loss of a task, by the critic's, by both or not at all."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning_fabric.plugins import Precision
from numpy.typing import NDArray
from torch import Tensor

from selfsup.control.asked import Asked
from selfsup.control.playing import Scene, unscaled
from selfsup.control.states import Step, picked
from selfsup.data.trajectory import Trajectories, transitions
from selfsup.errors import UserError
from selfsup.pretraining import keep
from selfsup.request import build, resolve
from selfsup.source import Broken, Source
from selfsup.task import Batch, Loss, Views
from selfsup.tasks import find_task
from selfsup.train.checkpoint import restore, training_state
from selfsup.train.collapse import CollapseSignal
from selfsup.train.optim import build_optimizer
from selfsup.views.reading import normalized
from selfsup.views.trajectory import TransitionViews

RATE = 1e-3  # of the encoder's Adam


class Pixels:
    """What an agent sees through: the representation of a task, of `stack` frames.

    Apart, the encoder learns by the loss of the task alone, and the agent gets features without a gradient. Jointly,
    and for `pixels` and `crops`, the critic's loss trains it too; of these the task has no loss. The batch of a task
    that learns from transitions is the agent's. The next observation is encoded as it is (Yarats et al., 2022, DrQ-v2),
    where CURL and DBC have an EMA encoder: only the agent's own networks have targets.

    Rewards are in their own unit: those of random episodes, from which a scale could be taken, are smaller than those
    to come. Encoders are in evaluation mode for the agent, so that what it sees does not depend on a batch.
    """

    def __init__(self, asked: Asked, source: Trajectories, space: Any) -> None:
        self.asked, self.space = asked, space
        unit = {"reward_scale": 1.0} if "reward_scale" in find_task(asked.task).hyperparameters() else {}
        options = {"size": asked.size, "stack": asked.stack, **unit, **asked.options}
        wanted = resolve(asked.task, source, options, encoder=asked.encoder)
        self.built = build(wanted, device="cpu", precision="float32", seed=asked.seed)
        self.task, self.spec = cast(Any, self.built.task.train()), cast(Any, wanted.spec)
        own: Any = self.built.views.for_device(self.built.fabric.device)
        shared = isinstance(own, TransitionViews)
        self.pretext = asked.sees == "latents"
        self.by_critic = asked.joint or asked.sees in ("pixels", "crops")
        if asked.sees == "crops" and (not shared or own.crop is None):
            raise UserError(f"{asked.task} sees whole frames, of which --sees pixels learns: give a task with crops")
        plain = TransitionViews(self.spec).for_device(self.built.fabric.device)
        self.views = own if shared and asked.sees in ("latents", "crops") else plain
        self.own_views = None if shared or not self.pretext else own
        self.encoder = self.task.representation()
        self.dim: int = self.encoder.dim
        self.parts = list(self.encoder.modules())  # found once: `eval` and `train` take a tenth of an update
        self.optimizer = build_optimizer(self.task, "adamw", RATE, 0.0)
        self.collapse = CollapseSignal(self.task.encoder, len(self.built.source))
        self.found = Loss(torch.zeros(()))

    @property
    def loss(self) -> float:
        """The task's loss of the last batch, 0 without one."""
        return float(self.found.value.detach())

    def add(self, source: Trajectories) -> None:
        """Take in what was added to the source."""
        self.steps = transitions(source, actions=True, rewards=True)
        self.samples = self.task.samples(source)

    def fetch(self, step: int) -> tuple[Batch, Batch]:
        """Return the agent's batch of a step, and the task's."""
        batch = self._fetched(self.views, self.steps, step)
        return batch, batch if self.own_views is None else self._fetched(self.own_views, self.samples, step)

    def features(self, fetched: tuple[Batch, Batch], step: int) -> Step:
        """Return what the agent learns from; the encoder learns before that, or waits for the critic (`follow`)."""
        batch = self.views.finish(fetched[0])
        self.task.progress, self.task.steps = step / self.asked.steps, self.asked.steps
        if self.pretext:
            own = batch if self.own_views is None else self.own_views.finish(fetched[1])
            self.found = self.task(own)
        if self.pretext and not self.by_critic:
            self._learn([self.found.value], [None])
        with torch.set_grad_enabled(self.by_critic):
            self.held = self._encoded(batch["obs"])
        self.seen = self.held.detach().requires_grad_(self.by_critic)
        with torch.no_grad():
            after = self._encoded(batch["next_obs"])
        action = torch.from_numpy(unscaled(batch["action"].numpy(), self.space))
        return Step(self.seen, action, after, 1 - batch["discount"], batch["reward"])

    def follow(self) -> None:
        """Learn from the gradient of the critic's loss, which is there, and from the task's."""
        if self.by_critic:
            value = [self.found.value] if self.pretext else []
            self._learn([self.held, *value], [self.seen.grad, *([None] * len(value))])

    def watching(self) -> Callable[[int, Scene], NDArray[np.float32]]:
        """Return a function from the number of an environment and its scene to its features (1, dim).

        It remembers the frames of each; before the first one that is repeated.
        """
        stack, kept = self.asked.stack, dict[int, deque[NDArray[np.uint8]]]()

        @torch.no_grad()
        def see(k: int, scene: Scene) -> NDArray[np.float32]:
            frames = kept.setdefault(k, deque([scene.frames] * stack, maxlen=stack))
            frames.append(scene.frames)
            pixels = np.ascontiguousarray(np.concatenate(frames, 3))
            found: NDArray[np.float32] = self._encoded(
                normalized(torch.from_numpy(pixels).permute(0, 3, 1, 2), self.spec.image)
            ).numpy()
            return found

        return see

    def told(self, progress: float) -> list[str]:
        """Return the loss of the task beside its chance value, and whether the encoder has collapsed."""
        value, chance = self.loss, self.found.chance
        beside = "" if chance is None else f" (chance {chance:.3g})"
        self.collapse.check(value, chance, progress)
        return [f"{self.asked.task} {value:.3g}{beside}"] * self.pretext + [self.collapse.word] * bool(
            self.collapse.word
        )

    def tensors(self) -> dict[str, Tensor]:
        """Return the task and its optimizer."""
        return training_state(self.task, self.optimizer, Precision())

    def load(self, tensors: Mapping[str, Tensor], where: Path) -> None:
        """Go on from `tensors`."""
        own = {name: value for name, value in tensors.items() if name.startswith(("task.", "optimizer."))}
        restore(own, self.task, self.optimizer, Precision(), where)

    def finish(self, folder: Path) -> None:
        """Write the run of an encoder that the task has trained."""
        if self.pretext:
            keep(self.built, folder, self.asked.steps, RATE)

    def _fetched(self, views: Views, samples: Source, step: int) -> Batch:
        seed = self.asked.seed
        fetched = views.fetch(samples, picked(seed, step, self.asked.batch_size, len(samples)), seed, step)
        if fetched.skipped:  # another one in its place would make other weights
            raise Broken(fetched.skipped[0][1])
        return fetched.batch

    def _encoded(self, x: Tensor) -> Tensor:
        for part in self.parts:
            part.training = False
        found: Tensor = self.encoder(x)
        for part in self.parts:
            part.training = True
        return found.float()

    def _learn(self, roots: list[Tensor], gradients: list[Tensor | None]) -> None:
        self.optimizer.zero_grad()
        torch.autograd.backward(roots, gradients)
        self.optimizer.step()
        if self.pretext:
            self.task.after_step()
