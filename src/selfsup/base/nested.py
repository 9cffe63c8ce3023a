"""Mappings of mappings, such as recipes, entry by entry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the entries of nested mappings, with their keys joined by dots; tuples as lists, as JSON has them."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flat(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, list(value) if isinstance(value, tuple) else value
