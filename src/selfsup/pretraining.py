"""`pretrain`: from data to a run folder with an encoder. Imports torch only when it is called."""

from __future__ import annotations

import inspect
import json
import logging
import math
import os
import shlex
import sys
import warnings
from contextlib import nullcontext
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfsup.checks import check_new_folder, check_numbers
from selfsup.errors import UserError, unknown
from selfsup.run import Run, differences, versions
from selfsup.tasks import find_task

if TYPE_CHECKING:
    import numpy as np
    from lightning_fabric import Fabric
    from numpy.typing import NDArray

    from selfsup.data import Source
    from selfsup.task import Task
    from selfsup.train.fit import Plan
    from selfsup.views import Views

    Data = str | os.PathLike[str] | NDArray[np.uint8] | Source
    Target = str | os.PathLike[str]
    TaskName = str | type[Task]
else:
    Data = Target = TaskName = str  # what the command line can give

BEGUN = {".lock", ".recipe.json.part", "tokenizer.json", ".tokenizer.json.part"}  # left by a kill before the recipe
PATIENCE = 600.0  # seconds that processes wait for one another: longer than measuring speed or saving may take
DEVICES = ("auto", "cpu", "cuda", "mps")
AT_MOST_SAMPLES = ("queue", "prototypes", "clusters")  # options
LR = {"adamw": 2e-3, "sgd": 0.05, "lars": 0.15}
WEIGHT_DECAY = {"adamw": 0.05, "sgd": 5e-4, "lars": 1e-6}


def pretrain(
    data: Data,
    /,
    *,
    task: TaskName = "rotation",
    encoder: str | None = None,
    steps: int | None = None,
    epochs: float | None = None,
    minutes: float | None = None,
    until: int | None = None,
    out: Target | None = None,
    labels: str | None = None,
    probe: Data | None = None,
    probe_labels: str | None = None,
    size: int | None = None,
    channels: int | None = None,
    batch_size: int | None = None,
    micro_batch: int | None = None,
    optimizer: str | None = None,
    lr: float | None = None,
    weight_decay: float | None = None,
    warmup: float | None = None,
    clip: float | None = None,
    tokenizer: str | None = None,
    pretrained: bool = False,
    init: Target | None = None,
    seed: int = 0,
    workers: int | None = None,
    cache: str | None = None,
    precision: str = "auto",
    device: str = "auto",
    quiet: bool = False,
    **hyperparameters: Any,
) -> Run:
    """Train an encoder on a pretext task and return the run.

    Called again with the same arguments it goes on where it was stopped, or returns the finished run.

    Args:
        data: A folder of pictures, a list file, an .npz file, a name (digits, mnist5k, torchvision:NAME) or an array.
        task: A name of `selfsup tasks`, or module:Class for your own. rotation by default: it is right for any
            pictures that have an up and a down, any batch and encoder, and cheap; `compare` finds what suits your data.
        encoder: convnet, vit, or any image model of timm; for texts bert-tiny, bert-mini, bert-small, gpt-tiny,
            gpt-mini or any model of transformers on this machine. The task's own by default, for pictures resnet18.
        steps: Optimizer steps; or give epochs or minutes. The default is 100 epochs.
        epochs: Passes over the data.
        minutes: Wall-clock time: the speed is measured first and the steps are fixed from it.
        until: Stop after this step, saved; the same command without it goes on.
        out: The run folder; runs/TASK-ENCODER by default.
        labels: For tasks that need labels: 'folders', a CSV file (path,label) or an .npz file with y.
        probe: Labelled data on which a linear probe is shown while the run goes on; they do not change the run.
        probe_labels: Where the labels of these data are, like labels.
        size: Pixels a side of what the encoder gets, by default the data's own, at most 224; of texts tokens, 128.
        channels: Channels of what the encoder gets; by default the data's own, 3 for files.
        batch_size: Samples a step, over all processes; 128, or the task's own default.
        micro_batch: Samples that are in memory at once: the gradient is that of the whole batch, for more time.
        optimizer: adamw, sgd or lars; adamw, or the task's own default.
        lr: Peak learning rate; by default the task's own, or for 128 samples 0.002 for adamw, 0.05 for sgd, 0.15 for
            lars, times the batch over 128 (adamw: its square root).
        weight_decay: By default the task's own, or 0.05 for adamw, 0.0005 for sgd, 0.000001 for lars.
        warmup: Share of the steps in which the learning rate rises; then it falls along a cosine; 0.05 by default.
        clip: Largest norm of the gradient.
        tokenizer: Of texts: wordpiece or bpe, trained on the data (8,000 tokens; wordpiece:SIZE), or a tokenizer.json.
        pretrained: Start from the pretrained weights of timm or transformers.
        init: A finished run whose encoder to start from, with its size, channels or tokenizer.
        seed: Seed of everything.
        workers: Threads that load data; by default chosen from the data. The result does not depend on it.
        cache: Keep the decoded pictures of files: 'memory', or a file to map (at most 8 GiB).
        precision: auto (bfloat16 where the processor has it), float32, bfloat16 or float16.
        device: auto, cpu, cuda or mps.
        quiet: No progress bar.
        hyperparameters: The task's own options; see `selfsup tasks NAME`.

    Raises:
        UserError: For anything that is wrong with the arguments; nothing has been written then.
        RunFailed: For a run that cannot go on.
    """
    import torch

    from selfsup.data import open_data
    from selfsup.encoders import build_encoder
    from selfsup.evaluation.online import OnlineProbe
    from selfsup.modalities import make_spec, modality
    from selfsup.nn.norm import synchronised
    from selfsup.train.checkpoint import load_weights, save_tensors
    from selfsup.train.fit import fit
    from selfsup.train.optim import OPTIMIZERS
    from selfsup.train.precision import bfloat16_saving, resolve_precision
    from selfsup.writing import only_here, write_atomically

    check_numbers(
        steps=steps, epochs=epochs, minutes=minutes, until=until, size=size, channels=channels, batch_size=batch_size,
        micro_batch=micro_batch, lr=lr, weight_decay=weight_decay, warmup=warmup, clip=clip, seed=seed, workers=workers,
    )  # fmt: skip
    budget = _budget(steps, epochs, minutes)
    if optimizer is not None and optimizer not in OPTIMIZERS:
        raise unknown("optimizer", optimizer, OPTIMIZERS)
    if out is not None:
        _before(Path(out))  # complains before the data are read
    name, kind, hyperparameters, source = prepare_task(task, open_data(data, labels), hyperparameters)
    started = None if init is None else Run(init)
    if started is None:
        spec = make_spec(source, size=size, channels=channels, tokenizer=tokenizer)
        encoder = encoder or kind.default_encoder
    else:
        if pretrained or encoder not in (None, started.encoder_name):
            raise UserError(
                f"--init starts from {started.encoder_name} as {started.folder} has it: leave --encoder out"
            )
        if not (size is None and channels is None and tokenizer is None):
            raise UserError("--init brings its own size, channels and tokenizer: leave yours out")
        spec, encoder = started.spec, started.encoder_name
    modality(spec).check(source, spec)
    fabric = make_fabric(device, precision)
    if batch_size is None:
        batch_size = min(
            kind.defaults.get("batch_size", 128), max(1, len(source) // fabric.world_size) * fabric.world_size
        )
    if batch_size % fabric.world_size:
        raise UserError(f"a batch of {batch_size} cannot be divided among {fabric.world_size} processes")
    watched = OnlineProbe(open_data(probe, probe_labels), spec, fabric.device, seed) if probe is not None else None
    resolved = resolve_precision(precision, fabric.device)
    torch.manual_seed(seed)
    built = build_encoder(encoder, spec, pretrained)
    if started is not None:
        load_weights(built, started.load().state_dict(), started.folder)
    module = kind(synchronised(built, fabric.device), **hyperparameters)
    data_source, source = source, module.samples(source)
    if batch_size > len(source):
        raise UserError(f"--batch-size must be at most {len(source)} (the number of samples), not {batch_size}")
    views = module.views(spec)

    folder = Path(out) if out is not None else Path("runs") / f"{name.rpartition(':')[2]}-{encoder}"
    ended = (folder / "encoder.safetensors").exists()
    with only_here(folder) if fabric.is_global_zero and not ended else nullcontext():
        before = _before(folder)
        if before and before.recipe.get("budget") == budget:
            count = int(before.recipe["plan"]["steps"])
        else:
            count = fabric.broadcast(_steps(budget, module, source, views, fabric, batch_size, micro_batch, seed))
        given = {"optimizer": optimizer, "lr": lr, "weight_decay": weight_decay, "warmup": warmup, "clip": clip}
        plan = make_plan(kind, batch_size, given, steps=count, micro_batch=micro_batch, seed=seed)
        recipe = {
            "task": {"name": name, "hyperparameters": hyperparameters},
            "encoder": {"name": encoder, "pretrained": pretrained}
            | ({"init": str(started.folder), "weights": started.weights_digest()} if started else {}),
            "data": {
                "name": data_source.name,
                "samples": len(data_source),
                "fingerprint": data_source.fingerprint(),
                "labels": labels,
            },
            "spec": {"kind": spec.kind, **asdict(spec)},
            "budget": budget,
            "plan": asdict(plan),
            "precision": resolved,
            "versions": versions(),
            "command": shlex.join(sys.argv),
        }
        if before:
            different = differences(before.recipe, json.loads(json.dumps(recipe)))
            if different:
                raise UserError(f"{folder} holds another run; give another --out. " + "; ".join(different))
            if before.done:
                return before
        if fabric.is_global_zero and not before:
            modality(spec).save(spec, folder)
            for note in getattr(data_source, "notes", ()):
                print(note, file=sys.stderr)
            write_atomically(folder / "recipe.json", json.dumps(recipe, indent=2).encode())
        if cache is not None:
            source = _cached(source, spec, cache)
        quiet = quiet or not fabric.is_global_zero
        if not quiet and not before and resolved == "bfloat16" and precision == "auto":
            saving = bfloat16_saving(module, source, views, fabric, batch_size, seed)
            print(
                f"precision bfloat16: {saving:.1f} × the speed of float32 here; --precision float32 to compare",
                file=sys.stderr,
            )
        fit(
            module, source, views, plan, fabric, folder=folder, workers="auto" if workers is None else workers,
            until=until, look=watched.look if watched else None, quiet=quiet,
        )  # fmt: skip
        if until is not None and until < count:
            return Run(folder)
        if fabric.is_global_zero:
            kept: Any = module.representation()
            save_tensors(
                folder / "encoder.safetensors", kept.state_dict(), {"encoder": encoder, "spec": recipe["spec"]}
            )
        fabric.barrier()
        return Run(folder)


def prepare_task(
    task: str | type[Task], source: Source, given: dict[str, Any]
) -> tuple[str, type[Task], dict[str, Any], Source]:
    """Return a task's name and class, all its hyper-parameters (given, else the default), and the samples it can use.

    `classes` comes from the labels where it was not given, and `items`, the number of samples, from the source. A
    default `queue`, or number of `prototypes` or `clusters`, is at most that of the samples: a longer queue holds past
    keys of every picture itself as negatives. Raises `UserError` for one that was given and is larger, for an option
    that the task does not have, and for labels that it needs and are not there.
    """
    import numpy as np

    name, kind = (task, find_task(task)) if isinstance(task, str) else (task.__name__, task)
    have = getattr(source, "modality", "image")
    if kind.modality not in ("any", have):
        raise UserError(f"{name} is for data of the kind {kind.modality}, and {source.name} is of the kind {have}")
    known = kind.hyperparameters()
    for option in given:
        if option not in known:
            raise unknown(f"option of {name}", option, known)
    values = {key: given.get(key, parameter.default) for key, parameter in known.items()}
    for key, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"--{key.replace('_', '-')} must be a finite number, not {value}")
    if kind.needs_labels:
        labels = source.labels
        if labels is None or not (labels.ids >= 0).any():
            raise UserError(
                f"{name} needs labels: give --labels folders, a CSV file (path,label) or an .npz file with y"
            )
        if len(labels.classes) < 2:
            raise UserError(f"{name} needs at least two classes; the labels name only {labels.classes[0]!r}")
        if values.get("classes") is inspect.Parameter.empty:
            values["classes"] = len(labels.classes)
        if values.get("classes", math.inf) < len(labels.classes):
            raise UserError(
                f"--classes {values['classes']} is less than the {len(labels.classes)} that the labels name"
            )
        if not kind.uses_unlabelled and (labels.ids < 0).any():
            source = source.take(np.flatnonzero(labels.ids >= 0))
    for option in AT_MOST_SAMPLES:
        count, value = len(source), values.get(option)
        if isinstance(value, int) and value > count:
            if option in given:
                raise UserError(f"--{option} {value:,} is more than there are samples ({count:,}); give fewer")
            values[option] = count
    if values.get("items") is inspect.Parameter.empty:
        values["items"] = len(source)
    missing = [key for key, value in values.items() if value is inspect.Parameter.empty]
    if missing:
        raise UserError(f"{name} needs --{missing[0].replace('_', '-')}")
    return name, kind, values, source


def _cached(source: Source, spec: Any, cache: str) -> Source:
    from selfsup.data import Files
    from selfsup.views.cache import Decoded

    if not isinstance(source, Files):
        raise UserError(f"--cache is for picture files; {source.name} is in memory already")
    return Decoded(source, spec.channels, path=None if cache == "memory" else cache)


def make_fabric(device: str, precision: str) -> Fabric:
    """Return Lightning Fabric on a device (auto, cpu, cuda, mps), in as many processes as torchrun started.

    They wait for each other for at most `PATIENCE` seconds: then one of them hangs, and the run ends.

    Raises `UserError` where the device is not there.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy

    from selfsup.train.memory import keep_memory
    from selfsup.train.precision import plugin, resolve_precision

    world, local = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if device not in DEVICES:
        raise unknown("device", device, DEVICES)
    strategy = DDPStrategy(timeout=timedelta(seconds=PATIENCE)) if world > 1 else "auto"
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            probe = Fabric(accelerator=device, devices=1)
            arithmetic = plugin(resolve_precision(precision, probe.device), probe.device)
            fabric = Fabric(
                accelerator=device,
                devices=local,
                num_nodes=world // local,
                strategy=strategy,
                plugins=arithmetic,
            )
            fabric.launch()
        except (RuntimeError, ValueError) as error:
            raise UserError(f"cannot use --device {device}: {str(error).splitlines()[0]}") from error
    if fabric.device.type == "cpu":
        keep_memory()
    return fabric


def _before(folder: Path) -> Run | None:
    if (folder / "recipe.json").exists():
        return Run(folder)
    if folder.exists() and not (folder.is_dir() and {path.name for path in folder.iterdir()} <= BEGUN):
        raise UserError(f"{folder} exists and is no run folder; give another --out")
    check_new_folder(folder)
    return None


def _budget(steps: int | None, epochs: float | None, minutes: float | None) -> dict[str, float]:
    given = {k: v for k, v in {"steps": steps, "epochs": epochs, "minutes": minutes}.items() if v is not None}
    if len(given) > 1:
        raise UserError(f"give only one of --steps, --epochs and --minutes, not {' and '.join(given)}")
    return given or {"epochs": 100}


def make_plan(kind: type[Task], batch_size: int, given: dict[str, Any], **rest: Any) -> Plan:
    """Return how to train: what was given (not None), else the task's defaults, else the general ones."""
    from selfsup.train.fit import Plan

    given = {key: value for key, value in given.items() if value is not None}
    values = dict(kind.defaults) | given
    if given.get("optimizer", kind.defaults.get("optimizer")) != kind.defaults.get("optimizer"):
        values = given  # the task's rates are for its own optimizer
    optimizer = values.setdefault("optimizer", "adamw")
    ratio = batch_size / values.pop("batch_size", 128)
    scale = math.sqrt(ratio) if optimizer == "adamw" else ratio
    if "lr" not in given:
        values["lr"] = values.get("lr", LR[optimizer]) * scale
    values.setdefault("weight_decay", WEIGHT_DECAY[optimizer])
    return Plan(batch_size=batch_size, **values, **rest)


def _steps(
    budget: dict[str, float],
    task: Task,
    source: Source,
    views: Views,
    fabric: Fabric,
    batch_size: int,
    micro_batch: int | None,
    seed: int,
) -> int:
    from selfsup.train.precision import step_seconds

    (unit, amount), *_ = budget.items()
    if unit == "steps":
        return int(amount)
    if unit == "epochs":
        return max(1, int(amount * (len(source) // batch_size)))
    return max(
        1, int(amount * 60 / step_seconds(task, source, views, fabric, batch_size, seed, micro_batch=micro_batch))
    )
