"""The one training loop."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from selfsup.base.progress import Progress
from selfsup.base.seeding import seed_step
from selfsup.base.turns import own_turn
from selfsup.errors import RunFailed
from selfsup.source import Source
from selfsup.task import Fetched, Loss, Task, Views
from selfsup.train.anchor import Anchor
from selfsup.train.channels_last import channels_last
from selfsup.train.checkpoint import CHECKPOINT, load_tensors, restore, save_tensors, step_of, training_state
from selfsup.train.clock import Clock
from selfsup.train.collapse import CollapseSignal
from selfsup.train.failures import one_line
from selfsup.train.log import Log, Skipped
from selfsup.train.micro import forward_backward
from selfsup.train.optim import build_optimizer, leave_frozen
from selfsup.train.plan import Plan
from selfsup.train.sharding import is_sharded, own
from selfsup.train.signals import Interrupted, signals
from selfsup.views.loader import batches

SAVE_SECONDS, SAVE_SHARE = 30.0, 0.02  # between checkpoints; the largest fraction of the time that writing them takes
LINES = 20_000  # of metrics.jsonl, at most
FOREVER = 10**9  # steps


class NotFinite(RunFailed):
    """A run whose loss became NaN or infinite: its `value`, and the number of the `step`, from 1 on."""

    def __init__(self, value: float, step: int, message: str) -> None:
        super().__init__(message)
        self.value, self.step = value, step


def fit(
    task: Task,
    source: Source,
    views: Views,
    plan: Plan,
    fabric: Fabric,
    *,
    low_res: Views | None = None,
    folder: Path | None = None,
    workers: int | str = "auto",
    until: int | None = None,
    clock: Clock | None = None,
    measure: Callable[[nn.Module, int, bool], Mapping[str, float]] | None = None,
    loggers: Sequence[str] | None = None,
    on_log: Callable[[dict[str, Any]], object] | None = None,
    quiet: bool = False,
) -> None:
    """Train `task` in place for `plan.steps` steps; with a `folder`, log, save, and resume a run that was stopped.

    `until` stops after that step of the plan; a later call resumes as if it had never stopped. `clock` may change the
    number of steps on the way. `low_res` are the views of the first `plan.low_res_steps`, cheaper ones.

    The batch, the views and the noise of a step depend on the seed and the step alone, so a resumed run ends with
    the same weights as one that was never stopped. At log points `measure` gets the representation, the steps done and
    whether these are all; its result is logged and shown. `loggers` and `on_log`: see `Log`. Raises `NotFinite` for a
    loss that is not finite, `RunFailed` for weights that are not (neither is saved), `Interrupted` after SIGINT,
    SIGTERM or SIGUSR1 (saved first).
    """
    checkpoint = folder / CHECKPOINT if folder else None
    channels_last(task)
    precision = fabric.strategy.precision
    scaled = getattr(precision, "scaler", None) is not None  # float16, which fused ones cannot clip
    without = is_sharded(fabric) and plan.optimizer == "sgd"  # of which torch has no fused one for divided parameters
    fused = fabric.device.type in ("cpu", "cuda") and not scaled and not without
    model = fabric.setup_module(task)  # first: it may put other parameters in the place of these
    raw_optimizer = build_optimizer(
        task, plan.optimizer, plan.lr, plan.weight_decay, plan.betas, fused, plan.layer_decay
    )
    optimizer: Any = fabric.setup_optimizers(raw_optimizer)
    anchor = Anchor(raw_optimizer, plan.l2_sp) if plan.l2_sp else None  # before a checkpoint is restored
    task.train()

    views = views.for_device(fabric.device)
    low_res, low_steps = (low_res.for_device(fabric.device), plan.low_res_steps) if low_res else (views, 0)
    start = 0
    if checkpoint and checkpoint.exists():
        tensors, about = load_tensors(checkpoint)
        restore(tensors, task, raw_optimizer, precision, checkpoint)
        start = step_of(about, checkpoint)

    def save(step: int) -> None:
        if not _all_finite(task, fabric):
            raise RunFailed(
                f"a weight is not finite after step {step}, whose gradient was not; the last good checkpoint is of "
                f"step {saved_step}; try a smaller --lr or --clip 1{_repeated(folder, step)}"
            )
        if checkpoint and (fabric.is_global_zero or is_sharded(fabric)):
            mine = checkpoint if fabric.is_global_zero else None
            save_tensors(mine, training_state(task, raw_optimizer, precision), {"step": step})

    stop_at = FOREVER if until is None else until
    end = min(stop_at, plan.steps)
    writes = folder if fabric.is_global_zero else None
    skipped = Skipped(source, folder)
    every = max(1, min(50, plan.steps // 200), -(-plan.steps // LINES))
    recent: list[Loss] = []
    measure, seen = measure if fabric.is_global_zero else None, dict[str, float]()
    lines = Log(writes, start, loggers, on_log if fabric.is_global_zero else None)
    representation: Any = task.representation()
    saved_at, saving, saved_step, done = time.monotonic(), 0.0, start, start
    last, change = stop_at if clock and start < end else max(start, end), max(start, min(low_steps, end))
    streams = [
        batches(
            source, made_by, batch_size=plan.batch_size, seed=plan.seed, start=first, steps=behind, workers=workers,
            pin=fabric.device.type == "cuda", rank=fabric.global_rank, world=fabric.world_size, block=plan.block,
        )
        for made_by, first, behind in ((low_res, start, change), (views, change, last))
    ]  # fmt: skip
    stream = _timed(chain.from_iterable(streams))
    shown = Progress(end, start, plan.batch_size, quiet=quiet or not fabric.is_global_zero, low_res=low_steps)
    collapse = CollapseSignal(task.encoder, len(source))

    def state() -> str:
        kept = f"the checkpoint of step {saved_step} is intact" if checkpoint and saved_step else "nothing was saved"
        return f"after step {done} of {plan.steps}; {kept}"

    def trial(count: int) -> None:
        few = {key: value[:count] for key, value in fetched.batch.items()}
        forward_backward(model, task, views.finish(fabric.to_device(few)), fabric, None)
        optimizer.step()  # which may allocate memory; the run ends, so these weights do not matter

    held = min(plan.batch_size, plan.micro_batch or plan.batch_size)
    explained = one_line(state, held, trial if fabric.world_size == 1 else None)
    with collapse, signals() as interruption, shown as progress, lines as log, explained:
        for step, (fetched, waited) in enumerate(stream, start):
            progress.wait(waited)
            if clock is not None and step == start + 1:
                clock.start(plan, step)  # after the first step, which compiles
            task.progress, task.steps = plan.progress(step), plan.steps_at(step)
            for group in optimizer.param_groups:
                child = group["child"]
                group["lr"] = group["rate"] * task.lr_of(child, plan.lr_at(step, child), plan.peak(child))
            with own_turn():
                seed_step(_noise_seed(plan.seed, step, fabric.global_rank), fabric.device)
                loss = forward_backward(
                    model, task, views.finish(fabric.to_device(fetched.batch)), fabric, plan.micro_batch
                )
                if loss.chance == 0 and not fetched.skipped:
                    raise RunFailed(
                        f"these samples leave nothing to learn: with {len(source):,} of them, in batches of "
                        f"{plan.batch_size:,}, every guess is right (the chance loss is 0); give more, and another "
                        "--out"
                    )
                leave_frozen(raw_optimizer)
                if plan.clip is not None:
                    fabric.clip_gradients(model, optimizer, max_norm=plan.clip)
                optimizer.step()
                if anchor:
                    anchor.pull()
                optimizer.zero_grad()
                task.after_step()

            recent.append(loss)
            skipped.add(fetched.skipped)
            done = step + 1
            logs = done % every == 0 or done == end
            due, stop = time.monotonic() - saved_at > max(SAVE_SECONDS, saving / SAVE_SHARE), interruption.signal
            if fabric.world_size > 1:  # clocks and signals differ between processes, which must act together
                due, stop = _agreed(due, stop, fabric) if logs else (False, 0)
            if logs or due or stop:
                values = _means(recent, done, plan, saved_step, fabric, folder)
                collapse.check(values["loss"], loss.chance, plan.progress(done))
                found = measure(representation, done, done == end) if measure and logs else {}
                seen |= found
                progress.update(done, values | seen, loss.chance, collapse.word, len(skipped.reasons))
                speed = {"samples_per_s": progress.rate, "waiting": progress.waiting}
                about = {"chance": loss.chance, "lr": plan.lr_at(step), **speed, **collapse.numbers}
                about["health"] = collapse.word
                if logs:
                    log.write({"step": done, **values, **found, **about})
                    recent.clear()
            if due or stop or done == end:
                saved_at = time.monotonic()
                save(done)
                saved_step, saving = done, time.monotonic() - saved_at
            if stop and done < plan.steps:
                raise Interrupted(stop, done, plan.steps, folder)
            if done == end:
                break
            if clock is not None and logs:
                plan = clock.check(plan, done)
                end = min(stop_at, plan.steps)
                progress.plan(end)
    if folder is not None and fabric.is_global_zero:
        skipped.say("replaced by others")


def _timed(stream: Iterator[Fetched]) -> Iterator[tuple[Fetched, float]]:
    while True:
        began = time.monotonic()
        try:
            fetched = next(stream)
        except StopIteration:
            return
        yield fetched, time.monotonic() - began


def _noise_seed(seed: int, step: int, rank: int) -> int:
    return (seed * 1_000_003 + step) * 4099 + rank


def _repeated(folder: Path | None, step: int) -> str:
    """Return the command that makes a step again, in words."""
    return f"; to see it: selfsup replay {shlex.quote(str(folder))} --step {step}" if folder else ""


def _means(
    recent: list[Loss], done: int, plan: Plan, saved_step: int, fabric: Fabric, folder: Path | None
) -> dict[str, float]:
    """Return the means of the loss and the metrics since the last log; raise `NotFinite` if a loss is not finite."""
    values = torch.stack([loss.value for loss in recent])
    if fabric.world_size > 1:
        values = _reduce(values, fabric, "mean")
    for place, value in enumerate(values.tolist()):
        if not math.isfinite(value):
            step = done - len(recent) + place
            raise NotFinite(
                value, step + 1,
                f"the loss is {value} at step {step + 1} with learning rate {plan.lr_at(step):.3g}; "
                f"the last good checkpoint is of step {saved_step}; try a smaller --lr or --clip 1"
                f"{_repeated(folder, step + 1)}",
            )  # fmt: skip
    means = {key: float(torch.stack([loss.metrics[key] for loss in recent]).mean()) for key in recent[-1].metrics}
    return {"loss": float(values.mean()), **means}


def _all_finite(task: nn.Module, fabric: Fabric) -> bool:
    """Return whether all weights are finite, in all processes, each of which may have a part of them."""
    here = all(bool(own(parameter).isfinite().all()) for parameter in task.parameters())
    return bool(_reduce(torch.tensor(int(here), device=fabric.device), fabric, "min"))


def _agreed(due: bool, stop: int, fabric: Fabric) -> tuple[bool, int]:
    """Return whether any process is due to save, and the largest signal."""
    wanted = _reduce(torch.tensor([int(due), stop], device=fabric.device), fabric, "max").tolist()
    return bool(wanted[0]), int(wanted[1])


def _reduce(values: Tensor, fabric: Fabric, how: str) -> Tensor:
    reduced = fabric.all_reduce(values, reduce_op=how)
    assert isinstance(reduced, Tensor)
    return reduced
