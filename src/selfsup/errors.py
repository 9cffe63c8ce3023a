"""The two ways in which a command ends badly, and the words they share."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


class UserError(Exception):
    """Bad input: one line that says what is wrong and what to do. The command line exits with status 2."""


class RunFailed(Exception):
    """A run that started well and cannot go on: one line that says why. The command line exits with status 1."""


def unknown(kind: str, name: str, known: Iterable[str], others: Iterable[str] = ()) -> UserError:
    """Return the error for a name that is not among `known`, with the nearest one suggested, which may be of `others`.

    Where none is near, those that are known are listed.
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, [*known, *others], n=1, cutoff=0.5)
    few = ", ".join(known[:20]) + (", …" if len(known) > 20 else "")
    hint = f"did you mean {near[0]!r}?" if near else f"known: {few}" if known else "there are none"
    return UserError(f"unknown {kind} {name!r}; {hint}")


def need(module: str, extra: str) -> ModuleType:
    """Import a module of an optional extra, or raise the one line that says what to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(f"this needs {module.split('.')[0]}: pip install 'selfsup[{extra}]'") from error
