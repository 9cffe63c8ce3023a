"""The one abstraction: a task turns a batch without labels into a supervised loss."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from torch import Tensor, nn

from selfsup.errors import UserError

if TYPE_CHECKING:
    from selfsup.views import Views

Batch = Mapping[str, Tensor]
"""Tensors by name; the first dimension of each is the sample. A task's docstring lists the keys that it reads."""


class Loss(NamedTuple):
    """What `Task.loss` returns."""

    value: Tensor  # the one scalar that is minimised
    metrics: Mapping[str, Tensor] = {}  # detached scalars: shown and logged
    chance: float | None = None  # the value of a guess that ignores the input, e.g. ln 4; None where there is none


class Encoder(Protocol):
    """A module (B, ...) -> (B, dim). `maps(x)` -> (B, C, H, W) and `tokens(x)` -> (B, N, dim) where it has them."""

    dim: int
    spec: Any  # the samples that it was built for

    def __call__(self, x: Tensor) -> Tensor:
        """Return the representation."""
        ...


class Panel(NamedTuple):
    """One picture of `selfsup show`: what the encoder sees, (C, H, W) as normalised by the views or text; its label."""

    image: Tensor | str
    caption: str


class Task(nn.Module, ABC):
    """Base class of every pretext task; keyword-only constructor arguments are its hyper-parameters.

    A subclass writes `views`, `loss` and `panels`, and overrides the rest where its paper asks for it. It never sees a
    trainer, a logger or a device name.
    """

    paper: ClassVar[str] = ""
    section: ClassVar[str] = ""
    modality: ClassVar[str] = "image"
    needs_labels: ClassVar[bool] = False
    uses_unlabelled: ClassVar[bool] = False  # with needs_labels: samples without a label (-1) are kept, not left out
    default_encoder: ClassVar[str] = "resnet18"
    small_encoder: ClassVar[str] = "convnet"  # one that is built at once: for pictures of what a task does
    defaults: ClassVar[Mapping[str, Any]] = {}  # of `train.fit.Plan`, where they suit the task better than the general
    counters: ClassVar[
        Mapping[str, Mapping[str, Any]]
    ] = {}  # cue of `audit` -> options that hide it: {"rim": {"gap": 4}}
    coupled: ClassVar[bool] = True  # False: the loss is a mean over samples, each of which is a function of it alone
    progress: float = 0.0  # step / total, written by fit alone

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        if not isinstance(encoder, nn.Module):
            raise UserError(f"an encoder is a torch module, not {type(encoder).__name__}")
        self.encoder: Any = encoder

    def samples(self, source: Any) -> Any:
        """Return the source that the task learns from, made of what the user gave: other cuts of long samples."""
        return source

    @abstractmethod
    def views(self, spec: Any) -> Views:
        """Return how a batch is made from samples of this `spec` (for pictures `selfsup.data.ImageSpec`)."""

    @abstractmethod
    def loss(self, batch: Batch) -> Loss:
        """Make the free labels and return their loss. Changes no buffer except BatchNorm's."""

    def forward(self, batch: Batch) -> Loss:
        """`loss`, by the name under which torch's wrappers (autocast, DDP, FSDP) find it."""
        loss = self.loss(batch)
        if not isinstance(loss, Loss) or loss.value.ndim:
            found = tuple(loss.value.shape) if isinstance(loss, Loss) else type(loss).__name__
            raise UserError(f"{type(self).__name__}.loss must return a Loss with one scalar tensor, not {found}")
        return loss

    def after_step(self) -> None:
        """Update what no gradient updates (momentum encoder, queue, centre), once after each optimizer step."""

    def lr_of(self, child: str, scheduled: float, peak: float) -> float:
        """Return the learning rate of the parameters of a child module, by its name; by default the scheduled one."""
        return scheduled

    def representation(self) -> Encoder:
        """Return what is kept, probed and exported."""
        encoder: Encoder = self.encoder
        return encoder

    @abstractmethod
    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the task's picture: one row a sample, what goes in beside its free label.

        With `guess`, which a trained task is asked for, beside what it predicts too.
        """

    @classmethod
    def hyperparameters(cls) -> dict[str, inspect.Parameter]:
        """Return the keyword-only arguments of the constructor: the one source of options, recipe and export."""
        parameters = inspect.signature(cls.__init__, eval_str=True).parameters
        return {name: p for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY}
