"""The central abstraction: a task turns an unlabelled batch into a supervised loss."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from selfsup.errors import UserError
from selfsup.source import Source
from selfsup.spec import Media

Batch = Mapping[str, Tensor]
"""Tensors by name; the first dimension of each is the sample. A task's docstring lists the keys that it reads."""


class Loss(NamedTuple):
    """The return value of `Task.loss`."""

    value: Tensor  # the one scalar that is minimised
    metrics: Mapping[str, Tensor] = {}  # detached scalars: shown and logged
    chance: float | None = None  # the value of a guess that ignores the input, e.g. ln 4; None where there is none


class Panel(NamedTuple):
    """One cell of a task's image: an input of the encoder, and its label.

    A tensor is one sample as the views make it; the spec draws it.
    """

    content: Tensor | Media
    caption: str


class Fetched(NamedTuple):
    """A batch, and the samples that could not be read: their number and the reason."""

    batch: Batch
    skipped: tuple[tuple[int, str], ...] = ()


class Views(Protocol):
    """How samples become a batch: `fetch` in a worker on the CPU, then `finish` on the device.

    Declarative, picklable, without weights or state: all randomness is a function of (seed, epoch, index).
    """

    def for_device(self, device: torch.device) -> Self:
        """Return the same views, with the work divided between `fetch` and `finish` as suits a device."""

    def fetch(self, source: Source, indices: NDArray[np.int64], seed: int, epoch: int) -> Fetched:
        """Return the views of the samples, each drawn from (seed, epoch, index) alone."""

    def finish(self, batch: Batch) -> Batch:
        """Return the batch as the encoder takes it (images: float32, normalized, channels last in memory)."""


class Encoder(Protocol):
    """A module (B, ...) -> (B, dim). `maps(x)` -> (B, C, H, W) and `tokens(x)` -> (B, N, dim) where it has them."""

    dim: int
    spec: Any  # the samples that it was built for

    def __call__(self, x: Tensor) -> Tensor:
        """Return the representation."""
        ...


class Task(nn.Module, ABC):
    """Base class of every pretext task; keyword-only constructor arguments are its hyper-parameters.

    A subclass writes `views`, `loss` and `panels`, and overrides the rest where its paper asks for it. It never sees a
    trainer, a logger or a device name.
    """

    paper: ClassVar[str] = ""
    section: ClassVar[str] = ""
    kind: ClassVar[str] = "image"  # of data; "any" for tasks that only need labels
    also: ClassVar[tuple[str, ...]] = ()  # further kinds of data, whose views it takes as they are
    needs_labels: ClassVar[bool] = False
    keeps_samples: ClassVar[bool] = False  # it stores something for each sample, so it says nothing about others
    uses_unlabelled: ClassVar[bool] = False  # with needs_labels: samples without a label (-1) are used too
    default_encoder: ClassVar[str] = "resnet18"
    small_encoder: ClassVar[str] = "convnet"  # built at once: for images of a task's inputs
    encoders: ClassVar[Mapping[str, str]] = {}  # of kinds of data, in place of both
    any_size: ClassVar[bool] = False  # it asks its encoder for no more than a representation, of views of any size
    defaults: ClassVar[Mapping[str, Any]] = {}  # of `train.plan.Plan`, in place of the general ones
    data_defaults: ClassVar[Mapping[str, Any]] = {}  # of the options of its kind of data, in place of the general ones
    wide_lr: ClassVar[float] = 1.5e-4  # AdamW's for 256 samples and a transformer as wide as ViT-B or BERT-base
    counters: ClassVar[
        Mapping[str, Mapping[str, Any]]
    ] = {}  # cue of `audit` -> options that remove it: {"rim": {"gap": 4}}
    coupled: ClassVar[bool] = True  # False: the loss is a mean over samples, each of which is a function of it alone
    progress: float = 0.0  # step / steps; both are written by fit alone
    steps: int = 0  # of the whole run

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        if not isinstance(encoder, nn.Module):
            raise UserError(f"an encoder is a torch module, not {type(encoder).__name__}")
        self.encoder: Any = encoder

    @classmethod
    def takes(cls, kind: str) -> bool:
        """Return whether it learns from data of a kind."""
        return cls.kind == "any" or kind in (cls.kind, *cls.also)

    @classmethod
    def encoder_for(cls, kind: str, small: bool = False) -> str:
        """Return the name of the encoder that it trains on data of a kind if none is asked for, or of its small one."""
        return cls.encoders.get(kind, cls.small_encoder if small else cls.default_encoder)

    @classmethod
    def resolve(cls, source: Source, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the hyper-parameters that depend on the data and were not given: number of items, largest queue.

        Raises `UserError` for given values that these data do not allow.
        """
        return {}

    def samples(self, source: Source) -> Source:
        """Return the source that the task learns from: the user's, or spans of its long samples."""
        return source

    @abstractmethod
    def views(self, spec: Any) -> Views:
        """Return how a batch is made from samples of this `spec`, e.g. `ImageSpec`."""

    @abstractmethod
    def loss(self, batch: Batch) -> Loss:
        """Make the free labels and return their loss. Changes no buffer except BatchNorm's."""

    def forward(self, batch: Batch) -> Loss:
        """Return `loss`, under the name by which torch's wrappers (autocast, DDP, FSDP) find it."""
        loss = self.loss(batch)
        if not isinstance(loss, Loss) or loss.value.ndim:
            found = tuple(loss.value.shape) if isinstance(loss, Loss) else type(loss).__name__
            raise UserError(f"{type(self).__name__}.loss must return a Loss with one scalar tensor, not {found}")
        return loss

    def after_step(self) -> None:
        """Update what gradients do not (EMA encoder, queue, centre), once after each optimizer step."""

    def lr_of(self, child: str, scheduled: float, peak: float) -> float:
        """Return the learning rate of the parameters of a child module, by its name; by default the scheduled one."""
        return scheduled

    def representation(self) -> Encoder:
        """Return the trained encoder, which is probed and exported."""
        return self.encoder

    @abstractmethod
    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the task's image: for each sample a row of its inputs and their free labels.

        With `guess`, for a trained task, also its predictions.
        """

    @classmethod
    def hyperparameters(cls) -> dict[str, inspect.Parameter]:
        """Return the keyword-only arguments of the constructor: the one source of options, recipe and export."""
        parameters = inspect.signature(cls.__init__, eval_str=True).parameters
        return {name: p for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY}


def at_most_samples(
    source: Source, given: Mapping[str, Any], task: type[Task], *names: str, per: int = 1
) -> dict[str, Any]:
    """Return the options that count samples (a queue, prototypes) where these are too few for the default.

    It is then their number by `per`, how many samples there should be for each, but 2 at least. A longer queue would
    hold several past embeddings of each sample. Raises `UserError` for a given one that is larger than the number of
    samples. For `Task.resolve`.
    """
    count, known = len(source), task.hyperparameters()
    for name in names:
        if isinstance(given.get(name), int) and given[name] > count:
            flag = name.replace("_", "-")
            raise UserError(f"--{flag} {given[name]:,} is more than there are samples ({count:,}); give fewer")
    most = min(count, max(2, count // per))
    return {name: most for name in names if name not in given and most < known[name].default}


def one_each(source: Source, given: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the option that is the number of samples, by which a task finds what it stores for each of them.

    Raises `UserError` for another number. For `Task.resolve`.
    """
    count = len(source)
    if given.get(name, count) != count:
        flag = name.replace("_", "-")
        raise UserError(f"--{flag} is the number of samples ({count:,}), not {given[name]:,}; leave it out")
    return {name: count}
