"""A request and what is built of it: checked against the data, then an encoder, a task and its views on a device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from selfsup.base.hub import MODEL, HubModel, fetch_model
from selfsup.base.notes import say
from selfsup.base.turns import own_turn
from selfsup.data import make_spec, spec_options, split_options
from selfsup.encoders import build_encoder, spec_of_weights
from selfsup.encoders.own import own_encoder
from selfsup.errors import UserError
from selfsup.nn.image.patches import side_for
from selfsup.nn.lora import add_lora, merged_state
from selfsup.nn.norm import keep_statistics, synchronised
from selfsup.run import Run
from selfsup.source import Source
from selfsup.spec import Spec
from selfsup.task import Encoder, Task, Views
from selfsup.tasks.resolve import resolve_task
from selfsup.train.checkpoint import load_weights
from selfsup.train.device import make_fabric
from selfsup.train.plan import default_batch
from selfsup.train.precision import resolve_precision
from selfsup.views.image import ImageViews

MANY = 10**9  # samples: more than any batch


@dataclass(frozen=True)
class Resolved:
    """A checked request: a task with all its hyper-parameters, data, and an encoder by name."""

    name: str  # of the task, as in the recipe
    task: type[Task]
    hyperparameters: dict[str, Any]
    source: Source
    spec: Spec
    encoder: str
    module: nn.Module | None  # an encoder of the user's own, whose class is `encoder`
    pretrained: bool
    weights: Path | None  # a file
    lora: int | None  # rank
    init: Run | None
    labels: str | None  # as given
    of_data: tuple[str, ...]  # what is not its default because of the data, in words

    @property
    def begins_trained(self) -> bool:
        """Whether the encoder begins with weights that were trained before."""
        return self.brings_statistics or self.init is not None

    @property
    def brings_statistics(self) -> bool:
        """Whether these weights are of elsewhere, where its BatchNorm saw more than it will see here: it keeps that."""
        return self.pretrained or self.weights is not None


@dataclass(frozen=True)
class Built:
    """Everything that is trained, on its device; `source` are the samples that the task learns from."""

    asked: Resolved
    task: Task
    source: Source
    views: Views
    fabric: Fabric
    batch_size: int
    precision: str
    seed: int
    chosen: bool  # the precision was "auto"
    of_data: tuple[str, ...]  # as in `Resolved`, and the batch
    keeps_encoder: bool  # the task's representation has the weights of the encoder, and no others


def resolve(
    task: str | type[Task],
    source: Source,
    options: Mapping[str, Any],
    *,
    encoder: str | nn.Module | None = None,
    pretrained: bool = False,
    weights: Path | None = None,
    lora: int | None = None,
    init: Run | None = None,
    labels: str | None = None,
) -> Resolved:
    """Check a request against the data. `options` are those of the task and of the data's kind together.

    Raises `UserError` for whatever does not fit together, before anything is written.
    """
    about_data, given = split_options(source.kind, options)
    name, task_class, hyperparameters, source = resolve_task(task, source, given)
    if pretrained and weights is not None:
        raise UserError("--pretrained are the weights of timm, --weights those of a file: leave one out")
    pushed: HubModel | None = None
    if isinstance(encoder, str) and MODEL.match(encoder):
        if weights is not None:
            raise UserError(f"{encoder} brings its weights: leave --weights out")
        pushed = fetch_model(encoder)
        encoder, weights, pretrained = pushed.architecture, pushed.weights, False
    module = encoder if isinstance(encoder, nn.Module) else None
    named = type(encoder).__name__ if isinstance(encoder, nn.Module) else encoder
    if module is not None and weights is not None:
        raise UserError(f"--weights is for a model of timm: load the weights into {named} before you give it")
    if init is None:
        spec = make_spec(source, task_class.data_defaults, **about_data)
        chosen = named or task_class.encoder_for(source.kind)
        spec = _as_weights(chosen, spec, pushed) if (pretrained and module is None) or weights else spec
    else:
        if pretrained or weights or module is not None or named not in (None, init.encoder_name):
            raise UserError(
                f"--init starts from the {init.encoder_name} of {init.folder}: leave --encoder and its weights out"
            )
        changed = {key: value for key, value in about_data.items() if value is not None}
        free = init.spec.of_training
        if changed.keys() - set(free):
            flags = " and ".join(f"--{key}" for key in changed if key not in free)
            own = " and ".join(key for key in spec_options(source.kind) if key not in free)
            raise UserError(f"--init brings its own {own}: leave {flags} out")
        whole: Any = init.spec
        spec, chosen, module = replace(whole, **changed), init.encoder_name, init.module
    source.conform(spec)
    of_data = _of_data(task_class, hyperparameters, given)
    return Resolved(
        name, task_class, hyperparameters, source, spec, chosen, module, pretrained, weights, lora, init, labels,
        of_data,
    )  # fmt: skip


def build(
    asked: Resolved,
    *,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int | None = None,
    seed: int = 0,
    shard_weights: bool = False,
) -> Built:
    """Make the encoder, the task and its views. Raises `UserError` if that is impossible with these data.

    `shard_weights`: see `make_fabric`.
    """
    fabric = make_fabric(device, precision, shard_weights)
    if batch_size is not None and batch_size % fabric.world_size:
        raise UserError(f"a batch of {batch_size} cannot be divided among {fabric.world_size} processes")
    with own_turn():
        torch.manual_seed(seed)
        encoder = make_encoder(asked, keeps_stem(asked), pretrained=asked.pretrained, weights=asked.weights)
        if asked.init is not None:
            load_weights(encoder, weights_of_init(asked.init, encoder), asked.init.folder)
        plain = shapes(encoder)
        task = asked.task(trainable(encoder, asked, fabric), **asked.hyperparameters)
    source = task.samples(asked.source)
    of_data = asked.of_data
    if batch_size is None:
        batch_size, usual = (default_batch(asked.task, n, fabric.world_size) for n in (len(source), MANY))
        of_data += (f"batch {batch_size:,} (by default {usual:,})",) if batch_size < usual else ()
    if batch_size > len(source):
        raise UserError(f"--batch-size must be at most {len(source)} (the number of samples), not {batch_size}")
    resolved, views = resolve_precision(precision, fabric.device), task.views(asked.spec)
    check_views(asked, task, views)
    return Built(
        asked, task, source, views, fabric, batch_size, resolved, seed, precision == "auto", of_data,
        shapes(task.representation()) == plain,
    )  # fmt: skip


def check_views(asked: Resolved, task: Task, views: Views) -> None:
    """Raise `UserError` if the encoder cannot take one of the sizes of images that a task shows it as they are."""
    if not task.any_size or not isinstance(views, ImageViews):
        return
    encoder: Any = task.encoder
    for side in sorted({crop.size for crop in views.groups.values()} - {encoder.spec.size}):
        if side_for(encoder, side) != side:
            raise UserError(
                f"{asked.name} has views of {side} pixels beside those of {encoder.spec.size}, which {asked.encoder} "
                "cannot take: give --encoder convnet, resnet18 or vit"
            )


def make_encoder(asked: Resolved, keep_stem: bool, **weights: Any) -> Any:
    """Return the encoder, untrained unless `weights` say otherwise; a module of the user's own as it was given."""
    if asked.module is not None:
        return own_encoder(asked.module, asked.spec)
    return build_encoder(asked.encoder, asked.spec, keep_stem=keep_stem, **weights)


def weights_of_init(init: Run, encoder: nn.Module) -> dict[str, Tensor]:
    """Return the weights from which `--init` starts: of a representation with layers of its task, the encoder's."""
    state: dict[str, Tensor] = init.load().state_dict()
    inside = {name.removeprefix("encoder."): value for name, value in state.items() if name.startswith("encoder.")}
    return inside if inside.keys() == encoder.state_dict().keys() else state


def trainable(encoder: Any, asked: Resolved, fabric: Fabric) -> Encoder:
    """Return an encoder as it is trained: with LoRA, and with the BatchNorm that was asked for."""
    if asked.lora:
        add_lora(encoder, asked.lora)
    encoder = synchronised(encoder, fabric.device)
    if asked.brings_statistics:
        keep_statistics(encoder)
    return encoder


def shapes(encoder: Any) -> dict[str, torch.Size]:
    """Return the shapes of an encoder's weights by name, as if it never had LoRA."""
    return {name: tensor.shape for name, tensor in merged_state(encoder).items()}


def keeps_stem(asked: Resolved) -> bool:
    """Return whether the encoder has the stem of weights that were trained elsewhere, whatever the size of images."""
    return asked.weights is not None or (asked.init is not None and asked.init.keeps_stem)


def _as_weights(encoder: str, spec: Spec, pushed: HubModel | None = None) -> Any:
    """Return the spec that the pretrained weights of an encoder are used to, and say how it differs."""
    found: Any = spec_of_weights(encoder, spec)
    if pushed and found.range is None and len(pushed.mean) == len(pushed.std) == found.channels:
        found = replace(found, mean=pushed.mean, std=pushed.std)
    if found != spec:
        mean, std = (", ".join(f"{value:.3g}" for value in values) for values in (found.mean, found.std))
        say(f"images are normalized as those that {encoder} was pretrained on: mean {mean}; std {std}")
    return found


def _of_data(task: type[Task], values: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the hyper-parameters that `Task.resolve` chose in place of a default, with their values, in words."""
    found = []
    for key, parameter in task.hyperparameters().items():
        if isinstance(values[key], dict):  # options of a part of the task
            found += [f"{own} {value}" for own, value in values[key].items() if own not in (given.get(key) or {})]
        elif key not in given and parameter.default not in (parameter.empty, values[key]):
            found.append(f"{key} {values[key]} (by default {parameter.default})")
    return tuple(found)
