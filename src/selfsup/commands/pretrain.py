"""`pretrain`: from data to a run folder with an encoder. Imports torch only when it is called."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, overload

from selfsup.base.checks import check_data_numbers, check_numbers
from selfsup.base.notes import say
from selfsup.base.paths import user_path
from selfsup.commands.given import Data, EncoderGiven, LabelsGiven, RunName, Target, TaskName
from selfsup.errors import UserError, unknown
from selfsup.run import Run
from selfsup.runs import PREFIX, Runs


@overload
def pretrain(data: Data, /, *, seeds: None = None, **options: Any) -> Run: ...
@overload
def pretrain(data: Data, /, *, seeds: int, **options: Any) -> Runs: ...
def pretrain(
    data: Data,
    /,
    *,
    task: TaskName = "rotation",
    encoder: EncoderGiven | None = None,
    steps: int | None = None,
    epochs: float | None = None,
    minutes: float | None = None,
    until: int | None = None,
    out: Target | None = None,
    labels: LabelsGiven | None = None,
    columns: str | None = None,
    probe: Data | None = None,
    probe_labels: LabelsGiven | None = None,
    probe_reader: str = "linear",
    probe_every: float | None = None,
    batch_size: int | None = None,
    micro_batch: int | None = None,
    optimizer: str | None = None,
    lr: float | None = None,
    weight_decay: float | None = None,
    warmup: float | None = None,
    clip: float | None = None,
    low_res_first: float | None = None,
    block: int | None = None,
    drop_tokens: float | None = None,
    layer_decay: float | None = None,
    l2_sp: float | None = None,
    lora: int | None = None,
    pretrained: bool = False,
    weights: Target | None = None,
    init: RunName | None = None,
    recalibrate: bool = True,
    seed: int = 0,
    seeds: int | None = None,
    workers: int | None = None,
    cache: str | None = None,
    grad_checkpointing: bool = False,
    shard_weights: bool = False,
    precision: str = "auto",
    device: str = "auto",
    log: str | None = None,
    on_log: Callable[[dict[str, Any]], object] | None = None,
    quiet: bool = False,
    **options: Any,
) -> Run | Runs:
    """Train an encoder on a pretext task and return the run, or several that differ in their seed.

    Called again with the same arguments it resumes where it was stopped, or returns the finished run.

    Args:
        data: A folder of images, a list file, an .npz file, a name (digits, mnist5k, torchvision:NAME) or an array.
        task: A name from `selfsup tasks`, or module:Class for your own. rotation by default: it is
            cheap and suits images with a natural up and down, any batch and encoder; `compare` finds the best for your
            data.
        encoder: convnet, vit, or any image model of timm (hf-hub:USER/NAME: one on the Hub of Hugging Face, with its
            weights); for texts bag-of-words, bert-tiny, bert-mini, bert-small,
            gpt-tiny, gpt-mini or any model of transformers on this machine. The task's own by default, for images
            resnet18. In Python also a torch module of your own, (B, …) -> (B, dim), whose copy is trained.
        steps: Optimizer steps; or give epochs or minutes. The default is 100 epochs.
        epochs: Passes over the data.
        minutes: Wall-clock minutes: the number of steps follows from the speed, which is measured first and checked
            four times on the way, so that the time is kept on a machine that becomes busier or less busy.
        until: Save and stop after this step; the same command without it resumes.
        out: The run folder; runs/TASK-ENCODER by default.
        labels: For tasks that need labels: 'folders', a CSV file (path,label) or an .npz file with y.
        columns: The columns of a label file, path=COLUMN,label=COLUMN, where they are called otherwise.
        probe: Labelled data for a probe whose accuracy is shown during the run; they do not influence the run.
        probe_labels: Where their labels are, in the forms of --labels.
        probe_reader: What reads the features of the probe: linear or knn.
        probe_every: Passes over the data between two readings of the probe, such as 1; by default as often as 2% of the
            time allows.
        batch_size: Samples per step, over all processes; by default the task's own, or 128, or all samples if there are
            fewer (texts count as the pieces that they are cut into).
        micro_batch: Samples in memory at once; the gradient is still that of the whole batch, in more time.
        optimizer: adamw, sgd or lars; by default the task's own, or adamw.
        lr: Peak learning rate; by default the task's own, or for 128 samples 0.002 for adamw, 0.05 for sgd, 0.15 for
            lars, times the batch over 128 (adamw: its square root). Lower for wide transformers and for encoders with
            trained weights: see docs/training.md.
        weight_decay: By default the task's own, or 0.05 for adamw, 0.0005 for sgd, 0.000001 for lars.
        warmup: Fraction of the steps in which the learning rate rises, before it falls along a cosine; 0.05 by default.
        clip: Largest norm of the gradient.
        low_res_first: Fraction of the steps, from the first one on, that use images of half the size, at a quarter of
            the cost or less; 0 by default, below 1.
        block: How many neighbours in the data are shuffled together, for shards far away, where these are one request;
            1 by default, of Parquet a row group. The order is less uniform: see docs/scale.md.
        drop_tokens: Fraction of the patches of each view that a transformer does not see in training, drawn anew in
            each step, which makes steps cheaper; 0 by default, below 1.
        layer_decay: Learning rate of each layer of the encoder as a fraction of that of the layer above it, above 0; 1
            by default, 0.65 to 0.75 in papers that go on from trained weights.
        l2_sp: How strongly an encoder with trained weights is drawn back to these (L2-SP, Li et al., 2018): the
            fraction of the way is the learning rate times this; off by default.
        lora: Rank of the matrices that are added to the linear layers of an encoder with trained weights, and alone are
            trained (LoRA, Hu et al., 2022): for large transformers, whose optimizer then needs little memory.
        pretrained: Start from the pretrained weights of timm or transformers; of a module of your own: that its weights
            were trained before.
        weights: Start from a file of weights for an --encoder of timm: .safetensors, or what torch saved (.pth, .pt,
            .bin), of which only tensors are read.
        init: A finished run to start from: its encoder, with its size, channels or tokenizer, and its views unless
            others are given.
        recalibrate: Measure the BatchNorm statistics of the trained encoder again, on 1,024 plain samples without
            labels, since a task may train on patches or grey samples, whose statistics differ. With --pretrained and
            --weights the encoder keeps those that it came with, in training too.
        seed: Seed of everything.
        seeds: Number of runs, with this seed and the next ones, each in a folder of its own below --out: seed-0,
            seed-1, … `evaluate` takes that folder, and gives intervals over seeds and draws.
        workers: Threads that load data; chosen from the data by default. The result does not depend on their number.
        cache: Keep the decoded images of files: 'memory', or a file to map (at most 8 GiB).
        grad_checkpointing: Compute the activations inside the encoder's blocks again for the gradient instead of
            keeping them (activation checkpointing): less memory, about a third more time, the same result.
        shard_weights: Divide weights, gradients and optimizer state among the processes of torchrun or srun (FSDP2)
            instead of keeping a copy in each (DDP): about 1/N of that memory, more communication, the same result.
        precision: auto (bfloat16 where the processor has it), float32, bfloat16 or float16.
        device: auto, cpu, cuda or mps.
        log: Where the numbers of metrics.jsonl go besides, separated by commas: tensorboard, wandb:PROJECT,
            mlflow:EXPERIMENT, trackio:PROJECT, or none; tensorboard by default, where it is installed.
        on_log: A function that is called with the numbers of each log point, a dict like a line of metrics.jsonl; what
            it raises ends the run.
        quiet: Hide progress.
        options: Those of the task, see `selfsup tasks NAME`, and of the kind of data (size, channels, range, views;
            tokenizer).

    Raises:
        UserError: For anything that is wrong with the arguments; nothing has been written then.
        RunFailed: For a run that cannot continue.
    """
    from selfsup.data import open_data
    from selfsup.data.labels import name_columns, noted_labels
    from selfsup.evaluation.online import READERS, OnlineProbe
    from selfsup.pretraining import run
    from selfsup.recipe import open_before
    from selfsup.request import build, resolve
    from selfsup.train.loggers import read_loggers
    from selfsup.train.optim import OPTIMIZERS
    from selfsup.train.plan import read_budget

    check_numbers(
        steps=steps, epochs=epochs, minutes=minutes, until=until, batch_size=batch_size, micro_batch=micro_batch, lr=lr,
        weight_decay=weight_decay, warmup=warmup, clip=clip, low_res_first=low_res_first,
        drop_tokens=drop_tokens, layer_decay=layer_decay, l2_sp=l2_sp, lora=lora, seed=seed, workers=workers,
        seeds=seeds, probe_every=probe_every, block=block,
    )  # fmt: skip
    check_data_numbers(options)
    labels, probe_labels = name_columns(columns, labels, probe_labels)
    budget, loggers = read_budget(steps, epochs, minutes), read_loggers(log)
    if optimizer is not None and optimizer not in OPTIMIZERS:
        raise unknown("optimizer", optimizer, OPTIMIZERS)
    if probe_reader not in READERS:
        raise unknown("reader of the probe", probe_reader, READERS)
    if shard_weights and probe is not None:
        raise UserError("--probe needs the whole encoder in one process, which --shard-weights divides: leave one out")
    numbers = [seed] if seeds is None else [*range(seed, seed + seeds)]

    def folders(whole: Path) -> list[Path]:
        if seeds is not None and (whole / "recipe.json").exists():
            raise UserError(f"{whole} is one run; --seeds makes a folder of several: give another --out")
        return [whole] if seeds is None else [whole / f"{PREFIX}{number}" for number in numbers]

    for folder in folders(user_path(out)) if out is not None else ():
        open_before(folder)  # raises before the data are read
    start = init if init is None or isinstance(init, Run) else Run(init)
    source = open_data(data, labels)
    asked = resolve(
        task, source, options, encoder=encoder, pretrained=pretrained,
        weights=None if weights is None else user_path(weights, "--weights"), lora=lora, init=start,
        labels=noted_labels(labels, source.labels),
    )  # fmt: skip
    watched = None if probe is None else open_data(probe, probe_labels)
    whole = user_path(out) if out is not None else Path("runs") / f"{asked.name.rpartition(':')[2]}-{asked.encoder}"
    found: list[Run] = []
    for number, folder in zip(numbers, folders(whole), strict=True):
        built = build(
            asked, device=device, precision=precision, batch_size=batch_size, seed=number, shard_weights=shard_weights
        )
        epoch = len(built.source) // built.batch_size
        reading = None
        if watched is not None:
            every = None if probe_every is None else max(1, round(probe_every * epoch))
            reading = OnlineProbe(watched, asked.spec, built.fabric.device, number, probe_reader, every)
        if seeds is not None and not quiet:
            say(f"{folder}: seed {number}, run {len(found) + 1} of {seeds}")
        found.append(run(
            built, folder, budget,
            {
                "optimizer": optimizer, "lr": lr, "weight_decay": weight_decay, "warmup": warmup, "clip": clip,
                "low_res_first": low_res_first, "drop_tokens": drop_tokens, "layer_decay": layer_decay,
                "l2_sp": l2_sp, "block": block,
            },
            until=until, micro_batch=micro_batch, workers=workers, cache=cache, grad_checkpointing=grad_checkpointing,
            measure=reading.measure if reading else None, loggers=loggers, on_log=on_log, recalibrated=recalibrate,
            quiet=quiet,
        ))  # fmt: skip
    return found[0] if seeds is None else Runs(tuple(found), whole)
