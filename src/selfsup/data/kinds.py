"""The kinds of data: where the options of each come from, and how `search` reads a query of it."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from selfsup.base.notes import say_notes
from selfsup.base.options import Option, read_options
from selfsup.errors import UserError
from selfsup.source import Source
from selfsup.spec import Spec

KINDS = {  # kind -> the source whose `spec` has the options, and a function from a query to a source of one sample
    "image": ("selfsup.data.image.files:Files", "selfsup.data.image.query:open_query"),
    "text": ("selfsup.data.text.sources:Texts", "selfsup.data.text.sources:open_query"),
    "audio": ("selfsup.data.audio.sources:Sounds", "selfsup.data.audio.sources:open_query"),
    "video": ("selfsup.data.video.sources:Videos", "selfsup.data.video.sources:open_query"),
    "trajectory": ("selfsup.data.trajectory.episodes:Episodes", "selfsup.data.trajectory.memory:open_query"),
}


def spec_parameters(*kinds: str) -> dict[str, inspect.Parameter]:
    """Return the arguments of the `spec` of the sources of kinds of data; for `any`, those of all kinds."""
    found: dict[str, inspect.Parameter] = {}
    for kind in KINDS if "any" in kinds else kinds:
        parameters = inspect.signature(_load(KINDS[kind][0]).spec, eval_str=True).parameters
        found |= {name: p for name, p in parameters.items() if name != "self"}
    return found


def spec_options(*kinds: str) -> dict[str, Option]:
    """Return the options of a kind of data with what they mean; of several or `any`, what they mean for each kind."""
    kinds = tuple(KINDS) if "any" in kinds else kinds
    if len(kinds) == 1:
        return read_options(spec_parameters(*kinds), inspect.getdoc(_load(KINDS[kinds[0]][0]).spec) or "")
    found: dict[str, Option] = {}
    for known in kinds:
        for name, option in spec_options(known).items():
            before = f"{found[name].help} " if name in found else ""
            found[name] = Option(option.default, f"{before}For {known} data: {option.sentence}")
    return found


def split_options(kind: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return those of a kind of data, and the others, which are a task's."""
    known = spec_parameters(kind)
    about_data = {key: value for key, value in options.items() if key in known}
    return about_data, {key: value for key, value in options.items() if key not in known}


def make_spec(source: Source, defaults: Mapping[str, Any] | None = None, /, **given: Any) -> Spec:
    """Return the spec of a source with the options that were given (not None), and `defaults` for others.

    Raises `UserError` for an option that it does not take.
    """
    given = {**(defaults or {}), **{key: value for key, value in given.items() if value is not None}}
    known = inspect.signature(source.spec).parameters
    for key in given:
        if key not in known:
            raise UserError(f"--{key} is not for {source.name}: leave it out")
    spec = source.spec(**given)
    say_notes(source)
    return spec


def open_query(kind: str, query: Any) -> Source:
    """Return a source of the one sample that a query of `search` means; raise `UserError` for none."""
    return _load(KINDS[kind][1])(query)


def _load(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
