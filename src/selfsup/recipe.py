"""The recipe of a run, recipe.json: everything resolved, as it is written, and read again where the run resumes."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from selfsup.base.checks import check_new_folder
from selfsup.base.writing import write_atomically
from selfsup.encoders.weights import weights_digest
from selfsup.errors import UserError
from selfsup.request import Built
from selfsup.run import START, Run, digest_of, versions
from selfsup.train.plan import Milestone, Plan

STARTED = {
    ".lock",
    ".recipe.json.part",
    "tokenizer.json",
    ".tokenizer.json.part",
    START,
    f".{START}.part",
}  # may remain if a run is killed before the recipe is written
SOMETIMES = (  # parts of a plan that most do not have
    "milestones", "encoder_lr", "low_res_first", "drop_tokens", "layer_decay", "l2_sp", "block",
)  # fmt: skip


def open_before(folder: Path, module: nn.Module | None = None) -> Run | None:
    """Return the run in a folder, None for a new one; raise `UserError` if a run cannot be written there.

    `module`: the encoder, where it is the user's own.
    """
    if (folder / "recipe.json").exists():
        before = Run(folder)
        return Run(folder, module) if before.own else before
    if folder.exists() and not (folder.is_dir() and {path.name for path in folder.iterdir()} <= STARTED):
        raise UserError(f"{folder} exists and is not a run folder; give another --out")
    check_new_folder(folder)
    return None


def recipe_of(built: Built, budget: dict[str, float], plan: Plan) -> dict[str, Any]:
    """Return the recipe of what was built, with its budget and plan."""
    asked = built.asked
    encoder = {"name": asked.encoder, "pretrained": asked.pretrained}
    if asked.module is not None:
        module_class = type(asked.module)
        encoder |= {
            "module": f"{module_class.__module__}.{module_class.__qualname__}",
            "weights": weights_digest(asked.module),
        }
    if asked.weights is not None:
        encoder |= {"file": asked.weights.name, "weights": digest_of(asked.weights), "keep_stem": True}
    if asked.lora:
        encoder |= {"lora": asked.lora}
    if asked.init is not None:
        encoder |= {"init": str(asked.init.folder), "weights": asked.init.weights_digest()}
        encoder |= {"keep_stem": True} if asked.init.keeps_stem else {}
    return {
        "task": {"name": asked.name, "hyperparameters": asked.hyperparameters},
        "encoder": encoder,
        "data": {
            "name": asked.source.name,
            "samples": len(asked.source),
            "fingerprint": asked.source.fingerprint(),
            "labels": asked.labels,
            "notes": list(getattr(asked.source, "notes", ())),
        },
        "spec": asked.spec.to_json(),
        "budget": budget,
        "plan": noted(plan),
        "precision": built.precision,
        "versions": versions(),
        "command": shlex.join(sys.argv),
    }


def noted(plan: Plan) -> dict[str, Any]:
    """Return the plan as in the recipe: without what it has only sometimes."""
    return {key: value for key, value in asdict(plan).items() if value or key not in SOMETIMES}


def write_recipe(recipe: dict[str, Any], folder: Path) -> None:
    """Write the recipe of a run, whole."""
    write_atomically(folder / "recipe.json", json.dumps(recipe, indent=2).encode())


def milestones_of(run: Run) -> tuple[Milestone, ...]:
    """Return where a run was planned again."""
    return tuple(Milestone(*one) for one in run.recipe["plan"].get("milestones", ()))


def plan_of(run: Run) -> Plan:
    """Return the plan of a run; raise `UserError` for a damaged one."""
    known = dict(run.recipe["plan"])
    try:
        known["betas"] = tuple(known["betas"])
        return Plan(**{**known, "milestones": milestones_of(run)})
    except (TypeError, KeyError) as error:
        raise UserError(f"{run.folder}/recipe.json is damaged: its plan cannot be read ({error})") from None


def replan(folder: Path, steps: int, milestones: Sequence[Sequence[float]]) -> None:
    """Set the number of steps of a run that was stopped, and where it was planned again (`train.plan.Milestone`)."""
    recipe = Run(folder).recipe
    plan = recipe["plan"] | {"steps": steps, "milestones": milestones}
    if plan != recipe["plan"]:
        write_recipe(recipe | {"plan": plan}, folder)
