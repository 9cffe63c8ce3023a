"""What a label is: the rule by which all are read, from a table, an array or Python values.

A label is text, as it is written: 001 is not 1. Whole numbers are written without a fraction (1.0 of an array or of
Parquet is 1), blanks around a label are left out, and Unicode is composed (NFC). `MISSING` are the words that mean no
label, -1 among them; NaN, None and samples that a table does not list have none either. Names of folders are classes
whatever they are, but for blanks around them. A list is several labels, a|b|c, which only `--target multi` takes.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from numbers import Integral
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from selfsup.errors import UserError
from selfsup.source import Labels

MISSING = frozenset(
    {"", "-1", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NULL", "null", "None"}
)  # -1, and what pandas takes for missing
SEVERAL = "|"


def read_labels(
    values: Iterable[object] | pa.Array, missing: Collection[str] = MISSING, several: bool = False
) -> Labels:
    """Return labels from one value a sample, by the rule of this module. Raises `UserError` for what is no label.

    Arrays of Arrow hold text, in which `several` labels may be joined already.
    """
    if not isinstance(values, pa.Array):
        values = list(values)
        several = any(is_list(value) for value in values)
        values = packed(values)
    encoded = values.dictionary_encode()
    counts = np.bincount(encoded.indices.drop_null().to_numpy(), minlength=len(encoded.dictionary)).tolist()
    names: list[bytes | None] = []
    blanks, none, example = 0, Counter[str](), ""
    for raw, count in zip(encoded.dictionary.to_pylist(), counts, strict=True):
        text = os.fsdecode(raw)
        name = text.strip()
        if name != text and name not in missing:
            blanks, example = blanks + count, example or text
        if name in missing:
            none[name or "empty"] += count
        names.append(None if name in missing else os.fsencode(unicodedata.normalize("NFC", name)))
    if len(encoded) - sum(counts):
        none["not given"] = len(encoded) - sum(counts)
    found = Labels.of(pa.array([*names, None], pa.large_binary()).take(encoded.indices))
    notes = []
    if blanks:
        notes.append(f"blanks around {blanks:,} labels were left out, for example around {example!r}")
    if without := sum(none.values()):
        words = ", ".join(f"{word} {count:,}" for word, count in none.most_common())
        why = "" if list(none) == ["not given"] else f" ({words})"
        notes.append(f"{without:,} of {len(encoded):,} samples have no label{why}")
    folded = Counter(name.casefold() for name in found.classes)
    if alike := [name for name in found.classes if folded[name.casefold()] > 1]:
        notes.append(f"{len(alike)} classes differ only in upper and lower case: {', '.join(map(repr, alike[:6]))}")
    if several:
        notes.append("samples have several labels, written a|b|c, which --target multi takes")
    return replace(found, several=several, notes=tuple(notes))


def array_labels(name: str, y: NDArray[Any]) -> Labels:
    """Return labels from an array of numbers or names, one a sample; `UserError` for others.

    Fractions are what `--target numeric` predicts; it is said that otherwise each value is a class.
    """
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or y.dtype.kind not in "biufSU":
        raise UserError(f"{name}: y must hold one number or name a sample, not {y.dtype} {y.shape}")
    if y.dtype.kind == "f" and np.isinf(y).any():
        raise UserError(f"{name}: y holds infinity; labels are numbers or names")
    try:
        found = read_labels(y.tolist())
    except (SystemError, ValueError):  # numbers that are no characters
        raise UserError(f"{name}: y is damaged, its names are not text") from None
    if y.dtype.kind == "f" and (y[np.isfinite(y)] % 1 != 0).any():
        told = "the labels are fractions: each value is a class, except with --target numeric"
        return replace(found, notes=(*found.notes, told))
    return found


def is_list(value: object) -> bool:
    """Tell whether a value is several labels."""
    return isinstance(value, list | tuple | set | frozenset) or (isinstance(value, np.ndarray) and value.ndim > 0)


def written(value: Any) -> str | None:
    """Return a value as text; None for a missing one."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return os.fsdecode(value)
    if is_list(value):
        texts = [text.strip() for one in value if (text := written(one)) is not None]
        if any(SEVERAL in text for text in texts):
            raise UserError(f"a list of labels holds {texts!r}, with the {SEVERAL!r} that separates several labels")
        return SEVERAL.join(dict.fromkeys(text for text in texts if text not in MISSING))
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, Integral):
        return str(int(value))
    if isinstance(value, float | np.floating):
        if value != value:
            return None
        if abs(value) == float("inf"):
            raise UserError("a label is infinity; labels are names or numbers")
        return str(int(value)) if value == int(value) else str(float(value))
    if isinstance(value, Mapping) or hasattr(value, "__array__"):
        raise UserError(f"a label is text, a whole number or a list of these, not {type(value).__name__}")
    return str(value)  # dates, decimals, identifiers


def packed(values: Iterable[Any]) -> pa.Array:
    """Return values as text, in Arrow binary; null for missing ones."""
    return pa.array([None if (text := written(v)) is None else os.fsencode(text) for v in values], "large_binary")
