"""The two ways in which a command ends badly, and the words they share."""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Iterable
from types import ModuleType


class UserError(Exception):
    """Bad input: one line that says what is wrong and what to do. The command line exits with status 2."""


class RunFailed(Exception):
    """A run that started well and cannot continue: one line that says why. The command line exits with status 1."""


def unknown(what: str, name: str, known: Iterable[str], others: Iterable[str] = ()) -> UserError:
    """Return the error for a name that is not among `known`, with the nearest one suggested, which may be of `others`.

    Nearest are those of which the name is a part: --queue-size for --queue. Where none is near, the known are listed.
    """
    known, word = sorted(known), name.strip("-")
    longer = [one for one in known if word and word in re.split("[-_]", one)]
    folded = {one.casefold(): one for one in (longer or [*known, *others])}  # ViT is near to vit
    near = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.0 if longer else 0.5)
    near = [folded[one] for one in near]
    few = ", ".join(known[:20]) + (", …" if len(known) > 20 else "")
    hint = f"did you mean {near[0]!r}?" if near else f"known: {few}" if known else "there are none"
    return UserError(f"unknown {what} {name!r}; {hint}")


def need(module: str, extra: str) -> ModuleType:
    """Import a module of an optional extra, or raise the one line that says what to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(f"this needs {module.split('.')[0]}: pip install 'selfsup[{extra}]'") from error
