"""selfsup: learn representations from data that nobody labelled, and learn whether they help."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selfsup.auditing import audit
    from selfsup.catalogue import tasks
    from selfsup.comparing import compare
    from selfsup.embedding import embed
    from selfsup.evaluation import evaluate
    from selfsup.exploring import explore
    from selfsup.exporting import export
    from selfsup.pretraining import pretrain
    from selfsup.reporting import report
    from selfsup.run import Run, load
    from selfsup.searching import search
    from selfsup.showing import show

__version__ = "0.1.0"
__all__ = [
    "Run",
    "audit",
    "compare",
    "embed",
    "evaluate",
    "explore",
    "export",
    "load",
    "pretrain",
    "report",
    "search",
    "show",
    "tasks",
]

_HOME = {
    "Run": "run",
    "audit": "auditing",
    "compare": "comparing",
    "embed": "embedding",
    "evaluate": "evaluation",
    "explore": "exploring",
    "export": "exporting",
    "load": "run",
    "pretrain": "pretraining",
    "report": "reporting",
    "search": "searching",
    "show": "showing",
    "tasks": "catalogue",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'selfsup' has no attribute {name!r}")
    return getattr(importlib.import_module(f"selfsup.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
