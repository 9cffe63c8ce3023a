"""`adapt`: go on training a foundation model on one's own data, without harm. Imports torch only when it is called."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfsup.base.checks import check_data_numbers, check_numbers
from selfsup.base.notes import hearing
from selfsup.base.paths import user_path
from selfsup.commands.given import Data, EncoderGiven, LabelsGiven, RunName, Target, TaskName
from selfsup.errors import UserError

if TYPE_CHECKING:
    from selfsup.adapting import Adapted

EPOCHS = 20  # by default: weights that were trained on millions of images need little, and can lose much


def adapt(
    data: Data,
    /,
    *,
    encoder: EncoderGiven | None = None,
    weights: Target | None = None,
    init: RunName | None = None,
    task: TaskName = "diet",
    labels: LabelsGiven | None = None,
    columns: str | None = None,
    steps: int | None = None,
    epochs: float | None = None,
    out: Target | None = None,
    batch_size: int | None = None,
    micro_batch: int | None = None,
    lr: float | None = None,
    weight_decay: float | None = None,
    warmup: float = 0.1,
    layer_decay: float | None = None,
    l2_sp: float | None = None,
    lora: int | None = None,
    seed: int = 0,
    workers: int | None = None,
    precision: str = "auto",
    device: str = "auto",
    log: str | None = None,
    quiet: bool = False,
    **options: Any,
) -> Adapted:
    """Continue training a foundation model on your own data, and keep the better of result and frozen start.

    The recipe does as little harm as it can: the encoder is frozen while new heads warm up, then learns at a tenth of
    their rate (with BatchNorm a hundredth, a wide transformer at the rate of the papers), lower layers more slowly.
    After an eighth, a quarter, a half, three quarters and all of the steps the encoder is held against the frozen
    start: by how much of the neighbourhoods of its features is left, which needs no label, and with --labels by
    accuracy on held-out labels. Training stops with an alarm when it falls below the start, and without labels as soon
    as more than 2% of what the frozen features know of their own clusters is lost. Called again it resumes. See
    docs/foundation.md.

    Args:
        data: A folder of images, a list file, an .npz file, a name or an array.
        encoder: An image model of timm, whose weights are taken from timm unless --weights gives a file, or
            hf-hub:USER/NAME, one that timm pushed to the Hub of Hugging Face, with its weights. In Python also a
            trained torch module of your own, (B, …) -> (B, dim).
        weights: A file of weights for that encoder: .safetensors, or what torch saved (.pth, .pt, .bin), of which only
            tensors are read.
        init: A finished run to start from, in place of --encoder.
        task: A name from `selfsup tasks`: what it learns from. diet by default: each sample is its own class, which was
            shown to help foundation models from a thousand images on, with nothing to choose.
        labels: A few labels that choose the stage and say whether it helped: 'folders', a CSV file (path,label) or an
            .npz file with y. Only samples of the data count.
        columns: The columns of a label file, path=COLUMN,label=COLUMN, where they are called otherwise.
        steps: Optimizer steps; or give epochs.
        epochs: Passes over the data; 20 by default.
        out: The run folder; runs/adapted-ENCODER by default.
        batch_size: Samples per step; by default the task's own, or 128.
        micro_batch: Samples in memory at once; the gradient is still that of the whole batch, in more time.
        lr: Peak learning rate of encoder and heads alike; by default as described above.
        weight_decay: By default the task's own, or 0.05.
        warmup: Fraction of the steps in which the learning rate rises and the encoder is frozen.
        layer_decay: Learning rate of each layer of the encoder as a fraction of that of the layer above it; 0.75 by
            default for models of timm, 1 for others.
        l2_sp: How strongly the encoder is drawn back to its first weights (L2-SP, Li et al., 2018); off by default.
        lora: Rank of the matrices that are added to the linear layers and alone are trained (LoRA, Hu et al., 2022):
            for large transformers.
        seed: Seed of everything.
        workers: Threads that load data; by default chosen from the data.
        precision: auto (bfloat16 where the processor has it), float32, bfloat16 or float16.
        device: auto, cpu, cuda or mps.
        log: Where the numbers of metrics.jsonl go besides, as for pretrain.
        quiet: Hide progress.
        options: Those of the task, see `selfsup tasks NAME`, and of the kind of data (size, channels, range, views).

    Raises:
        UserError: For anything that is wrong with the arguments; nothing has been written then.
        RunFailed: For a run that cannot continue.
    """
    from selfsup.adapting import adapt as go_on
    from selfsup.data import open_data
    from selfsup.data.labels import name_columns, noted_labels
    from selfsup.recipe import open_before
    from selfsup.request import Built, build, resolve
    from selfsup.run import Run
    from selfsup.train.loggers import read_loggers

    check_numbers(
        steps=steps, epochs=epochs, batch_size=batch_size, micro_batch=micro_batch, lr=lr, weight_decay=weight_decay,
        warmup=warmup, layer_decay=layer_decay, l2_sp=l2_sp, lora=lora, seed=seed, workers=workers,
    )  # fmt: skip
    check_data_numbers(options)
    if steps is not None and epochs is not None:
        raise UserError("give only one of --steps and --epochs")
    if (encoder is None) == (init is None):
        raise UserError("give --encoder (a model of timm) or --init (a finished run), and not both")
    if out is not None:
        open_before(user_path(out))  # raises before the data are read
    (labels,) = name_columns(columns, labels)
    start, source = init if init is None or isinstance(init, Run) else Run(init), open_data(data, labels)
    if labels is None and source.labels is not None:  # those that the data bring: nobody gave them for this
        source = copy.copy(source)
        source.labels = None
    file = None if weights is None else user_path(weights, "--weights")

    def make() -> Built:
        asked = resolve(
            task, source, options, encoder=encoder, pretrained=file is None and start is None, weights=file, lora=lora,
            init=start, labels=noted_labels(labels, source.labels),
        )  # fmt: skip
        return build(asked, device=device, precision=precision, batch_size=batch_size, seed=seed)

    own = encoder is not None and not isinstance(encoder, str)
    of_timm = source.kind == "image" and not own and (start is None or start.keeps_stem)
    name = start.encoder_name if start is not None else type(encoder).__name__ if own else encoder
    given = {
        "lr": lr, "weight_decay": weight_decay, "warmup": warmup, "l2_sp": l2_sp,
        "layer_decay": layer_decay if layer_decay is not None or not of_timm else 0.75,
    }  # fmt: skip
    with hearing():  # each stage is built anew: what they say alike is said once
        return go_on(
            make, user_path(out) if out is not None else Path("runs") / f"adapted-{str(name).rpartition('/')[2]}",
            {"steps": steps} if steps is not None else {"epochs": epochs or EPOCHS}, given,
            micro_batch=micro_batch, workers=workers, loggers=read_loggers(log), quiet=quiet,
        )  # fmt: skip
