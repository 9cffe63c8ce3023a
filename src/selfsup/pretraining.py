"""Pretraining in three steps: resolve the request, build what is trained (`request.py`), train it into a run folder."""

from __future__ import annotations

import hashlib
import json
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from selfsup.base.notes import say
from selfsup.base.paths import expanded
from selfsup.base.turns import own_turn
from selfsup.base.writing import only_here
from selfsup.data.image import Files
from selfsup.data.image.cache import Decoded
from selfsup.errors import UserError
from selfsup.nn.ema import Momentum, first_momentum
from selfsup.nn.image.patches import side_for
from selfsup.nn.lora import merged_state
from selfsup.recipe import milestones_of, noted, open_before, plan_of, recipe_of, write_recipe
from selfsup.request import Built, Resolved, check_views, keeps_stem, make_encoder, shapes, trainable
from selfsup.run import START, Run, differences, fixed
from selfsup.source import Source
from selfsup.spec import ImageSpec, Spec
from selfsup.task import Task, Views
from selfsup.tasks import TASKS
from selfsup.tasks.resolve import resolve_task
from selfsup.train.checkpoint import CHECKPOINT, load_tensors, load_weights, save_tensors, step_saved
from selfsup.train.clock import Clock
from selfsup.train.device import make_fabric
from selfsup.train.fit import fit
from selfsup.train.plan import Milestone, Plan, is_wide, make_plan
from selfsup.train.precision import bfloat16_saving, step_seconds
from selfsup.train.recalibrate import recalibrate, recalibrated_samples
from selfsup.train.recompute import recompute_blocks
from selfsup.train.sharding import gathered

MIN_SIZE = 8  # pixels a side of an image, at least


def run(
    built: Built,
    folder: Path,
    budget: Mapping[str, float],
    given: Mapping[str, Any],
    *,
    until: int | None = None,
    micro_batch: int | None = None,
    workers: int | None = None,
    cache: str | None = None,
    grad_checkpointing: bool = False,
    measure: Callable[[nn.Module, int, bool], Mapping[str, float]] | None = None,
    loggers: Sequence[str] | None = None,
    on_log: Callable[[dict[str, Any]], object] | None = None,
    recalibrated: bool = True,
    quiet: bool = False,
) -> Run:
    """Train into a run folder, or resume where it was stopped, or return the finished run.

    `budget` has one entry: steps, epochs or minutes. `given` are the options of the plan (optimizer, lr, …), None for
    the default. `grad_checkpointing`: see `train.recompute`. `measure`, `loggers`, `on_log`: see `fit`. `recalibrated`:
    whether the statistics of the trained encoder's BatchNorm are taken again (`train.recalibrate`), unless it
    brought them. Raises `UserError` for a folder of another run.
    """
    asked, fabric = built.asked, built.fabric
    ended = (folder / "encoder.safetensors").exists()
    with only_here(folder) if fabric.is_global_zero and not ended else nullcontext():
        before, began = open_before(folder, asked.module), time.monotonic()
        _agree({"started": before is not None, "saved": step_saved(folder / CHECKPOINT)}, fabric, str(folder))
        for option, wanted in {"--l2-sp": given.get("l2_sp"), "--lora": asked.lora}.items():
            if wanted and not asked.begins_trained:
                raise UserError(
                    f"{option} is for an encoder with trained weights (--pretrained, --weights, --init): leave it out"
                )
        if given.get("drop_tokens"):
            _drop_tokens(built, given["drop_tokens"])
        if grad_checkpointing and not recompute_blocks(built.task.encoder):
            raise UserError(f"--grad-checkpointing: {asked.encoder} has no blocks, which repeat; leave it out")
        milestones: tuple[Milestone, ...] = ()
        kept: Any = built.task.representation()
        recalibrated &= not asked.brings_statistics
        samples = recalibrated_samples(kept, built.source) if recalibrated else 0
        after = samples / built.batch_size / 3  # steps: a forward pass is about a third of one
        if before and before.recipe.get("budget") == budget:
            steps, milestones = int(before.recipe["plan"]["steps"]), milestones_of(before)
        else:
            steps = fabric.broadcast(_steps(built, budget, micro_batch, after))
        plan = make_plan(
            asked.task,
            built.batch_size,
            given,
            encoder=built.task.encoder,
            trained=_begins_trained(built),
            steps=steps,
            micro_batch=micro_batch,
            seed=built.seed,
            milestones=milestones,
        )
        low_res = _low_res_views(built, budget) if plan.low_res_first else None
        recipe = recipe_of(built, dict(budget), plan) | ({"recalibrated": samples} if samples else {})
        _agree(recipe, fabric, "the data and options")
        if before:
            different = differences(before.recipe, json.loads(json.dumps(recipe)))
            if different:
                more = f" (with --init {shlex.quote(str(folder))} to train its encoder further)" if before.done else ""
                if asked.module is not None and any(line.startswith("encoder.weights") for line in different):
                    more += ", or make the module with the same weights (torch.manual_seed before it)"
                raise UserError(f"{folder} holds another run; give another --out{more}. " + "; ".join(different))
            if before.done:
                return before
        if fabric.is_global_zero and not before:
            asked.spec.save(folder)
            if asked.begins_trained or asked.module is not None:  # which evaluations hold the result against
                start: Any = built.task.get_submodule("encoder")
                save_tensors(folder / START, merged_state(start), {"encoder": asked.encoder})
            say(*_notes(built), *_chosen(built, steps), *_rates(built, plan, given))
            write_recipe(recipe, folder)
        source = built.source if cache is None else _cached(built.source, asked.spec, cache)
        quiet = quiet or not fabric.is_global_zero
        alone = fabric.world_size == 1  # the others would not take part in measuring
        if not quiet and alone and not before and built.precision == "bfloat16" and built.chosen:
            saving = bfloat16_saving(built.task, source, built.views, fabric, built.batch_size, built.seed)
            say(f"precision bfloat16: {saving:.1f} × the speed of float32 here; --precision float32 to compare")

        def record(plan: Plan) -> None:
            if fabric.is_global_zero:
                write_recipe(recipe | {"plan": noted(plan)}, folder)

        seconds = 60 * budget.get("minutes", 0) * steps / (steps + after)
        clock = Clock(seconds, record, fabric, began) if "minutes" in budget else None
        fit(
            built.task, source, built.views, plan, fabric, low_res=low_res, folder=folder, clock=clock,
            workers="auto" if workers is None else workers, until=until, measure=measure, loggers=loggers,
            on_log=on_log, quiet=quiet,
        )  # fmt: skip
        if until is not None and until < Run(folder).recipe["plan"]["steps"]:
            return Run(folder, asked.module)
        trained: Any = built.task.representation()
        weights = gathered(merged_state(trained), fabric)
        if fabric.is_global_zero:
            if samples:
                weights = read_out(built, weights, source).state_dict()
                if not quiet:
                    say(
                        f"BatchNorm: statistics measured again on {samples:,} samples without the task's changes "
                        "(--no-recalibrate: as trained)"
                    )
            _save_encoder(built, weights, folder)
        fabric.barrier()
        return Run(folder, asked.module)


def _agree(about: Mapping[str, Any], fabric: Fabric, what: str) -> None:
    """Raise `UserError` in every process of a run if one of them has other values than the first; all wait for it."""
    if fabric.world_size == 1:
        return
    text = json.dumps(fixed(json.loads(json.dumps(about))), sort_keys=True).encode()
    digest = int.from_bytes(hashlib.blake2b(text, digest_size=7).digest())
    digests: Any = fabric.all_gather(torch.tensor(digest, device=fabric.device))
    odd = next((rank for rank, other in enumerate(digests.tolist()) if other != digests[0]), None)
    if odd is None:
        return
    first, other = (fabric.broadcast(dict(about), src=rank) for rank in (0, odd))
    a, b = fixed(first), fixed(other)
    lines = [f"{key}: {a.get(key)!r} and {b.get(key)!r}" for key in {**a, **b} if a.get(key) != b.get(key)]
    raise UserError(
        f"processes 0 and {odd} of this run differ in {what}: {'; '.join(lines)}. All have to see the same data and "
        "the same run folder, on a file system that the machines share"
    )


def keep(built: Built, folder: Path, steps: int, lr: float) -> Run:
    """Write the run folder of a task that was trained elsewhere, such as beside an agent, without a checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    plan = make_plan(
        built.asked.task, built.batch_size, {"lr": lr}, encoder=built.task.encoder, steps=steps, seed=built.seed
    )
    built.asked.spec.save(folder)
    write_recipe(recipe_of(built, {"steps": steps}, plan), folder)
    trained: Any = built.task.representation()
    _save_encoder(built, merged_state(trained), folder)
    return Run(folder)


def _save_encoder(built: Built, weights: Mapping[str, Tensor], folder: Path) -> None:
    about = {"encoder": built.asked.encoder, "spec": built.asked.spec.to_json()}
    save_tensors(folder / "encoder.safetensors", weights, about)


def _begins_trained(built: Built) -> bool:
    """Return whether the encoder is trained already and others are not, for which it waits."""
    names = (name for name, parameter in built.task.named_parameters() if parameter.requires_grad)
    return built.asked.begins_trained and any(not name.startswith("encoder.") for name in names)


def _low_res_views(built: Built, budget: Mapping[str, float]) -> Views:
    """Return the task's views at half the size; raise `UserError` where there are none."""
    asked, spec = built.asked, built.asked.spec
    if "minutes" in budget:
        raise UserError("--low-res-first is a fraction of --steps or --epochs; with --minutes leave it out")
    if not asked.task.any_size or not isinstance(spec, ImageSpec):
        raise UserError(f"--low-res-first: {asked.name} cannot learn from images of half the size; leave it out")
    half = spec.size // 2
    if half < MIN_SIZE or side_for(built.task.encoder, half) != half:
        raise UserError(
            f"--low-res-first: {asked.encoder} cannot take {half} pixels, half of {spec.size}; leave it out"
        )
    views = built.task.views(replace(spec, size=half))
    check_views(asked, built.task, views)
    return views


def _drop_tokens(built: Built, fraction: float) -> None:
    """Let the encoder see only some patches of each view while it trains; raise `UserError` where it cannot.

    An EMA encoder, which the task made before, sees all.
    """
    encoder: Any = built.task.encoder
    if not built.asked.task.any_size or not getattr(encoder, "patch", 0):
        raise UserError(
            f"--drop-tokens is for transformers and for tasks that do not ask for tokens themselves, not for "
            f"{built.asked.name} with {built.asked.encoder}; leave it out"
        )
    from timm.layers import PatchDropout

    encoder.model.patch_drop = PatchDropout(fraction, num_prefix_tokens=encoder.prefix)


def read_out(built: Built, weights: Mapping[str, Tensor], source: Source) -> nn.Module:
    """Return the representation with these weights and, if it has BatchNorm, with the statistics of plain samples.

    It is built anew: the one that was trained may wait for the other processes, and its statistics suit its task. One
    that brought its statistics has kept them.
    """
    asked = built.asked
    with own_turn():
        encoder = make_encoder(asked, asked.pretrained or keeps_stem(asked))
        trained: Any = asked.task(encoder, **asked.hyperparameters).representation()
    load_weights(trained, weights, "the trained encoder")
    if not asked.brings_statistics:
        recalibrate(trained, source, asked.spec, seed=built.seed, device=built.fabric.device)
    return trained


def _notes(built: Built) -> tuple[str, ...]:
    """Return what should be said once about the encoder and the number of samples."""
    notes: tuple[str, ...] = getattr(built.task.encoder, "notes", ())
    if len(built.source) == 1 and built.task.coupled:
        notes += (f"one sample: where {built.asked.name} compares samples with each other, it learns nothing",)
    return notes


def _chosen(built: Built, steps: int) -> tuple[str, ...]:
    """Return in one line what follows the number of samples and steps."""
    chosen, parts = built.of_data, built.task.modules()
    if any(isinstance(part, Momentum) and part.start is None for part in parts):
        chosen += (f"momentum {first_momentum(steps):.3g} at first",)
    if not chosen:
        return ()
    return (f"{built.asked.name} with {len(built.source):,} samples and {steps:,} steps: {', '.join(chosen)}",)


def _rates(built: Built, plan: Plan, given: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what should be said once about learning rates that follow the encoder."""
    notes: tuple[str, ...] = ()
    if given.get("lr") is None and plan.optimizer == "adamw" and is_wide(built.task.encoder):
        notes += (
            f"learning rate {plan.lr:.2g}: {built.task.wide_lr:g} for 256 samples, as published for transformers of "
            "this width; --lr gives another",
        )
    if plan.encoder_lr is not None:
        notes += (
            f"the encoder starts from trained weights: frozen in the first {plan.warmup:.0%} of the steps, while the "
            f"rest warms up, then at a learning rate of at most {plan.encoder_lr:.2g}",
        )
    return notes


def rebuild(
    run: Run, source: Source, *, task: type[Task] | None = None, device: str = "auto"
) -> tuple[Built, Plan, Views | None]:
    """Return what a run trains, as it was before the first step, its plan, and its cheaper views if it has any.

    `source`: the run's own data. `task`: its class, where it is not one of selfsup. Raises `UserError` where the
    recipe is damaged, or the run began with the encoder of another one that is gone or has changed.
    """
    recipe, about = run.recipe, run.recipe["encoder"]
    fabric, plan, known = make_fabric(device, recipe["precision"]), plan_of(run), recipe["task"]["hyperparameters"]
    if task is None and run.task not in TASKS:
        raise UserError(f"{run.task} is not a task of selfsup itself: give its class")
    name, task_class, hyperparameters, source = resolve_task(task or run.task, source, known)
    before = Run(about["init"]) if about.get("init") else None
    if before and (not before.done or before.weights_digest() != about.get("weights")):
        raise UserError(f"{run.folder} began with the encoder of {before.folder}, which is another one now")
    file = Path(about["file"]) if about.get("file") else None
    asked = Resolved(
        name, task_class, hyperparameters, source, run.spec, run.encoder_name, run.module, about["pretrained"], file,
        about.get("lora"), before, recipe["data"].get("labels"), (),
    )  # fmt: skip
    with own_turn():
        torch.manual_seed(plan.seed)
        encoder = run.fresh_encoder()
        if before:
            load_weights(encoder, before.load().state_dict(), before.folder)
        elif run.began_trained:
            load_weights(encoder, load_tensors(run.folder / START)[0], run.folder / START)
        plain = shapes(encoder)
        built_task = run.begin(task_class, trainable(encoder, asked, fabric))
    samples, views = built_task.samples(source), built_task.views(run.spec)
    built = Built(
        asked, built_task, samples, views, fabric, plan.batch_size, recipe["precision"], plan.seed, False, (),
        shapes(built_task.representation()) == plain,
    )  # fmt: skip
    if plan.drop_tokens:
        _drop_tokens(built, plan.drop_tokens)
    return built, plan, _low_res_views(built, recipe["budget"]) if plan.low_res_first else None


def _steps(built: Built, budget: Mapping[str, float], micro_batch: int | None, after: float) -> int:
    """Return the steps of a budget; of minutes, in which the time of so many steps is needed `after` them."""
    (unit, amount), *_ = budget.items()
    if unit == "steps":
        return int(amount)
    if unit == "epochs":
        return max(1, int(amount * (len(built.source) // built.batch_size)))
    seconds = step_seconds(
        built.task, built.source, built.views, built.fabric, built.batch_size, built.seed, micro_batch=micro_batch
    )
    return max(1, int(amount * 60 / seconds - after))


def _cached(source: Source, spec: Spec, cache: str) -> Source:
    if not isinstance(source, Files):
        raise UserError(f"--cache is for image files; {source.name} is in memory already")
    return Decoded(source.conform(spec), path=None if cache == "memory" else expanded(cache, "--cache"))
