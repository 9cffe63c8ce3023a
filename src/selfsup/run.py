"""A run folder: recipe.json (everything resolved), encoder.safetensors (the trained encoder), checkpoint/ and logs."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from selfsup import __version__
from selfsup.base import hub
from selfsup.base.nested import flat
from selfsup.base.paths import user_path
from selfsup.base.printing import Printable
from selfsup.errors import UserError
from selfsup.tasks import TASKS, find_task

if TYPE_CHECKING:
    from torch import nn

    from selfsup.encoders.image.backbone import Backbone
    from selfsup.spec import Spec
    from selfsup.task import Task

START = "start.safetensors"  # of a run whose encoder began trained: the weights that it began with
FREE = ("versions.", "command", "data.notes")  # may differ when a run is resumed


class Run(Printable):
    """A folder that `pretrain` wrote, or hf://user/name, which `push` did; `recipe` is its recipe.json.

    A run whose `encoder` was a module of the user's own is opened with it: a recipe never names code to import. Any
    function that takes a run takes it so: `selfsup.evaluate(selfsup.Run("runs/mine", encoder=module), …)`.

    Raises `UserError` if the folder is not a run, or its recipe is damaged.
    """

    def __init__(self, folder: str | os.PathLike[str], encoder: nn.Module | None = None) -> None:
        self.folder = hub.fetch(str(folder)) if hub.on_hub(folder) else user_path(folder, "a run")
        self.module = encoder
        if outside := leads_out(self.folder):
            raise UserError(f"{outside}, so it is not opened; replace it by a file in {self.folder}")
        try:
            text = (self.folder / "recipe.json").read_text(encoding="utf-8")
        except FileNotFoundError:
            reason = "it has no recipe.json" if self.folder.is_dir() else "there is no such folder"
            raise UserError(f"{self.folder} is not a run folder: {reason}; `selfsup pretrain` makes one") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "recipe.json is not text"
            raise UserError(f"{self.folder} is not a run folder: {reason}; `selfsup pretrain` makes one") from None
        from selfsup.spec import read_spec

        try:
            self.recipe: dict[str, Any] = json.loads(text)
            self.task, self.encoder_name = self.recipe["task"]["name"], self.recipe["encoder"]["name"]
            self._spec = read_spec(self.recipe["spec"], self.folder)
            wrong = self._wrong()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError, UserError) as error:
            wrong = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        if wrong:
            raise UserError(f"{self.folder}/recipe.json is damaged: {wrong}; pretrain again with another --out")
        if encoder is not None and not self.own:
            raise UserError(f"{self.folder} has the encoder {self.encoder_name}: open it without encoder=")

    def _wrong(self) -> str:
        """Return the fault in those values of the recipe that are used later, '' if there is none."""
        recipe = self.recipe
        if type(steps := recipe["plan"]["steps"]) is not int:
            return "the steps are not a whole number"
        milestones = recipe["plan"].get("milestones", [])
        sound = {
            "task": isinstance(self.task, str) and isinstance(recipe["task"]["hyperparameters"], dict),
            "encoder": isinstance(self.encoder_name, str)
            and type(recipe["encoder"].get("lora", 1)) is int
            and isinstance(recipe["encoder"].get("module", ""), str),
            "plan": 0 < steps <= 10**9
            and all(0 < step < steps and 0 <= far <= 1 and at >= 0 for step, far, at in milestones),
            "data": isinstance(recipe.get("data", {}), dict),
            "versions": isinstance(recipe.get("versions", {}), dict),
            "precision": recipe["precision"] in ("float32", "bfloat16", "float16"),
        }
        return next((f"it has an impossible {key}" for key, holds in sound.items() if not holds), "")

    def as_json(self) -> dict[str, Any]:
        """Return the folder, the state and the recipe."""
        return {"run": str(self.folder), "done": self.done, "recipe": self.recipe}

    def __rich__(self) -> str:
        state = "done" if self.done else "unfinished"
        steps = self.recipe["plan"]["steps"]
        return f"{self.folder}: {self.task}, {self.encoder_name}, {steps:,} step{'s' * (steps != 1)}, {state}"

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}: {self.task}, {self.encoder_name}, {'done' if self.done else 'unfinished'})"

    @property
    def done(self) -> bool:
        """Whether the encoder has been written, which is the last step of a run."""
        return (self.folder / "encoder.safetensors").exists()

    @property
    def spec(self) -> Spec:
        """The spec of the samples that the encoder takes: `ImageSpec`, `TextSpec`."""
        return self._spec

    def fresh_task(self) -> Task | None:
        """Return the task with an untrained encoder; None for one that is not in the registry."""
        return self.begin(find_task(self.task), self.fresh_encoder()) if self.task in TASKS else None

    def fresh_encoder(self) -> Any:
        """Return the same encoder untrained; a module of the user's own as it was when the run began."""
        from selfsup.encoders import build_encoder

        if self.own:
            return self._own_encoder()
        return build_encoder(self.encoder_name, self.spec, keep_stem=self.keeps_stem)

    @property
    def own(self) -> bool:
        """Whether the encoder is a module of the user's own."""
        return "module" in self.recipe["encoder"]

    @property
    def began_trained(self) -> bool:
        """Whether the encoder began with weights that were trained before."""
        about = self.recipe["encoder"]
        return bool(about.get("pretrained") or about.get("init") or about.get("file"))

    def _own_encoder(self) -> Any:
        from selfsup.encoders.own import own_encoder

        if self.module is None:
            raise UserError(
                f"the encoder of {self.folder} is a module of your own ({self.recipe['encoder']['module']}), which "
                f"only you can give: in Python selfsup.Run({str(self.folder)!r}, encoder=module) in place of the folder"
            )
        return self._begun(own_encoder(self.module, self.spec))

    def _begun(self, encoder: Any) -> Any:
        """Return an encoder with the weights that it began with."""
        from selfsup.train.checkpoint import load_tensors, load_weights

        path = self.folder / START
        load_weights(encoder, load_tensors(path)[0], path)
        return encoder

    @property
    def keeps_stem(self) -> bool:
        """Whether the encoder began with pretrained weights, so that it never has the stem for small images."""
        return bool(self.recipe["encoder"].get("pretrained") or self.recipe["encoder"].get("keep_stem"))

    def load(self, task: type[Task] | None = None) -> nn.Module:
        """Return the pretrained encoder in evaluation mode, on the CPU; all its parameters can be trained.

        A `task` outside of the registry is given as its class if its representation is more than the encoder:
        a recipe never names code to import.
        """
        from selfsup.train.checkpoint import check_fit, load_tensors, load_weights

        path = self.folder / "encoder.safetensors"
        if not path.exists():
            raise UserError(f"{self.folder} is unfinished: run the same `selfsup pretrain` command again")
        if task is None and self.task in TASKS:
            task = find_task(self.task)

        def build() -> Any:
            encoder = self.fresh_encoder()
            return encoder if task is None else self.begin(task, encoder).representation()

        check_fit(build, path)
        encoder = build()
        load_weights(encoder, load_tensors(path)[0], path)
        return encoder.requires_grad_(True).eval()  # an EMA encoder is a frozen copy

    def metrics(self) -> Any:
        """Return the lines of metrics.jsonl, one a log point: a DataFrame if pandas is installed, else a list of dicts.

        `step` and the means since the last point: `loss` beside its `chance`, the metrics of the task, `lr`,
        `samples_per_s`, `waiting` (fraction of the time), `health`. Raises `UserError` for a run without any yet.
        """
        from selfsup.train.log import read_lines

        path = self.folder / "metrics.jsonl"
        if not path.exists():
            raise UserError(f"{self.folder} has no metrics.jsonl yet: it has not come to a log point")
        lines = list(read_lines(path.read_bytes(), step=int))
        return importlib.import_module("pandas").DataFrame(lines) if find_spec("pandas") else lines

    def weights_digest(self) -> str:
        """Return a hash of the encoder's weights."""
        return digest_of(self.folder / "encoder.safetensors")

    def load_start(self) -> nn.Module | None:
        """Return the encoder with the weights that it began with, if those were trained before; else None."""
        if not (self.folder / START).exists():
            return None
        encoder = self.fresh_encoder()  # of the user's own it has these weights already
        begun: nn.Module = encoder if self.own else self._begun(encoder)
        return begun.eval()

    def load_task(self, task: type[Task] | None = None) -> tuple[Task, int]:
        """Return the whole task as of the last checkpoint, in evaluation mode, on the CPU; and the step.

        A `task` outside of the registry is given as its class: a recipe never names code to import.
        """
        from selfsup.nn.lora import add_lora
        from selfsup.train.checkpoint import CHECKPOINT, check_fit, load_tensors, load_weights, step_of

        path = self.folder / CHECKPOINT
        if not path.exists():
            raise UserError(f"{self.folder} has no checkpoint yet: run the same `selfsup pretrain` command again")
        if task is None and self.task not in TASKS:
            raise UserError(f"{self.task} is not a task of selfsup itself: give its class")
        task_class = task or find_task(self.task)

        def build() -> Task:
            encoder = self.fresh_encoder()
            if rank := self.recipe["encoder"].get("lora"):
                add_lora(encoder, rank)
            return self.begin(task_class, encoder)

        check_fit(build, path, "task.")
        tensors, about = load_tensors(path)
        whole = build()
        load_weights(whole, {k.removeprefix("task."): v for k, v in tensors.items() if k.startswith("task.")}, path)
        return whole.eval(), step_of(about, path)

    def begin(self, task: type[Task], encoder: Any) -> Task:
        """Return the task with the run's options and an encoder; raise `UserError` where that is impossible."""
        options = self.recipe["task"]["hyperparameters"]
        known = task.hyperparameters()
        try:
            for name, value in options.items():
                if name in known and not fits(value, known[name].annotation):
                    raise ValueError(f"{name} is {value!r}")
            return task(encoder, **options)
        except (TypeError, ValueError, RuntimeError, OverflowError, ArithmeticError, MemoryError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise UserError(f"{self.folder}: {self.task} cannot be made with {options}: {reason}") from None


def leads_out(folder: Path) -> str:
    """Return a description of a link out of a run folder, or of an entry that is neither file nor folder; '' for none.

    Otherwise a folder from someone else could make `evaluate`, `report` or a resumed run write elsewhere, or wait
    forever on a pipe.
    """
    home = folder.resolve()
    for place in (folder, folder / "checkpoint"):
        if not place.is_dir():
            continue
        for path in place.iterdir():
            if path.is_symlink() and not path.resolve().is_relative_to(home):
                return f"{path} is a link that leads out of the run folder"
            if path.exists() and not (path.is_file() or path.is_dir()):
                return f"{path} is neither a file nor a folder"
    return ""


def fits(value: Any, annotation: Any) -> bool:
    """Return whether a value from JSON can be an argument with this annotation."""
    parts = get_args(annotation)
    if get_origin(annotation) in (Union, UnionType):
        return any(fits(value, part) for part in parts)
    if get_origin(annotation) is Literal:
        return value in parts
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 53
    if annotation in (bool, str, type(None), None):
        return isinstance(value, type(None) if annotation is None else annotation)
    if (get_origin(annotation) or annotation) in (tuple, list, Sequence):
        return isinstance(value, list)
    return True


def load(run: str | os.PathLike[str] | Run, encoder: nn.Module | None = None) -> nn.Module:
    """Return the pretrained encoder of a run, in evaluation mode: (B, …) as the views make samples -> (B, dim).

    `encoder`: the module that was given to `pretrain`, if it was the user's own; a copy of it is returned.
    """
    if isinstance(run, Run) and encoder is None:
        return run.load()
    return Run(run.folder if isinstance(run, Run) else run, encoder).load()


def load_backbone(run: str | os.PathLike[str] | Run, out_indices: Sequence[int] | None = None) -> Backbone:
    """Return the pretrained encoder of a run as a backbone, in evaluation mode: (B, C, H, W) -> a list of maps.

    See `selfsup.encoders.image.backbone.Backbone`.
    """
    from selfsup.encoders.image.backbone import Backbone

    return Backbone(load(run), out_indices).eval()


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    from importlib.metadata import version

    names = ("torch", "torchvision", "timm", "numpy", "pillow", "scikit-learn")
    return {"selfsup": __version__, "python": platform.python_version()} | {name: version(name) for name in names}


def differences(here: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """Return one line for each entry in which two recipes differ, apart from versions and the command."""
    old, new = fixed(here), fixed(asked)
    found: dict[tuple[str, str], str] = {}  # the same of the budget and of the plan once
    for key in {**old, **new}:
        if old.get(key) != new.get(key):
            told = f"{old.get(key)!r} here, {new.get(key)!r} requested"
            found.setdefault((key.rpartition(".")[2], told), f"{key}: {told}")
    return list(found.values())


def fixed(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a recipe, nested ones under a.b, that may not differ when a run is resumed."""
    return {key: value for key, value in flat(recipe) if not key.startswith(FREE)}


def digest_of(path: Path) -> str:
    """Return a hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()
