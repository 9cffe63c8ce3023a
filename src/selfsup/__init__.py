"""selfsup: learn representations from data that nobody labelled, and learn whether they help."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selfsup.commands.adapt import adapt
    from selfsup.commands.audit import audit
    from selfsup.commands.compare import compare
    from selfsup.commands.control import learn_control
    from selfsup.commands.curate import curate
    from selfsup.commands.doctor import doctor
    from selfsup.commands.embed import embed
    from selfsup.commands.evaluate import evaluate
    from selfsup.commands.explore import explore
    from selfsup.commands.export import export
    from selfsup.commands.index import index
    from selfsup.commands.label import label
    from selfsup.commands.pack import pack
    from selfsup.commands.pretrain import pretrain
    from selfsup.commands.push import push
    from selfsup.commands.record import record
    from selfsup.commands.replay import replay
    from selfsup.commands.report import report
    from selfsup.commands.search import search
    from selfsup.commands.show import show
    from selfsup.commands.start import start
    from selfsup.commands.suggest import suggest
    from selfsup.commands.tasks import list_tasks
    from selfsup.data.open import open_data
    from selfsup.run import Run, load, load_backbone
    from selfsup.runs import Runs

__version__ = "0.1.0"
__all__ = [
    "Run",
    "Runs",
    "adapt",
    "audit",
    "compare",
    "curate",
    "doctor",
    "embed",
    "evaluate",
    "explore",
    "export",
    "index",
    "label",
    "learn_control",
    "list_tasks",
    "load",
    "load_backbone",
    "open_data",
    "pack",
    "pretrain",
    "push",
    "record",
    "replay",
    "report",
    "search",
    "show",
    "start",
    "suggest",
]

_OTHER = {
    "Run": "selfsup.run",
    "Runs": "selfsup.runs",
    "load": "selfsup.run",
    "load_backbone": "selfsup.run",
    "open_data": "selfsup.data.open",
    "learn_control": "selfsup.commands.control",
    "list_tasks": "selfsup.commands.tasks",
}


def __getattr__(name: str) -> Any:
    if name == "control":  # the package, for its `features`; the command is `learn_control`
        return importlib.import_module("selfsup.control")
    if name not in __all__:
        raise AttributeError(f"module 'selfsup' has no attribute {name!r}")
    return getattr(importlib.import_module(_OTHER.get(name, f"selfsup.commands.{name}")), name)


def __dir__() -> list[str]:
    return __all__
