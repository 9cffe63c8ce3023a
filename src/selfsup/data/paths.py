"""From paths as people write them to the samples that they mean: exactly, or each like exactly one sample's."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from selfsup.errors import UserError

MANY = -2  # samples to which a path is alike


def find_paths(
    paths: pa.Array, given: pa.Array, name: str, data: str, some: bool = False
) -> tuple[NDArray[np.int64], list[str]]:
    """Return the number of the sample that each given path means, and a line on those that are not written alike.

    `paths` are those of the samples. A path that is none of them may differ in backslashes, blanks around it, Unicode
    composition, upper and lower case, one folder in front of all, folders left out in front, and a suffix left out, if
    it is then like exactly one. Raises `UserError` for a path that is like several, or like none: with `some`, only
    where all are, and else their numbers are -1, which a further line counts.
    """
    given = pc.replace_substring_regex(given, pattern=r"^(\./)+", replacement="")
    found = pc.index_in(given, value_set=paths).fill_null(-1).to_numpy().astype(np.int64)
    missing = np.flatnonzero(found < 0)
    if not len(missing):
        return found, []
    own = [os.fsdecode(path) for path in paths.to_pylist()]
    written = [os.fsdecode(path) for path in given.take(pa.array(missing)).to_pylist()]
    found[missing] = _alike(own, [_key(text) for text in written])
    unlike = found[missing] < 0
    left_out = some and bool((found >= 0).any()) and not (found == MANY).any()
    if unlike.any() and not left_out:
        at = int(np.flatnonzero(unlike)[0])
        text, key = written[at], _key(written[at])
        alike = [path for path in own if key and (_key(path) == key or ("/" + _key(path)).endswith("/" + key))][:2]
        if len(alike) > 1:
            raise UserError(f"{name}: {text!r} may mean {alike[0]!r} or {alike[1]!r}; write whole paths")
        raise UserError(
            f"{name} labels {int(unlike.sum()):,} paths that {data} does not have, for example {text!r}; "
            f"its paths are like {own[0]!r}"
        )
    notes = []
    if unlike.any():
        example = written[int(np.flatnonzero(unlike)[0])]
        notes.append(f"{int(unlike.sum()):,} paths are of no sample and left out, for example {example!r}")
    known = np.flatnonzero(~unlike)
    if len(known):
        notes += _said([written[i] for i in known.tolist()], [own[i] for i in found[missing[known]].tolist()])
    return found, notes


def _alike(own: Sequence[str], keys: Sequence[str]) -> NDArray[np.int64]:
    """Return the sample that each key is like, -1 for none and -2 for several."""
    found = np.full(len(keys), -1)
    whole = [_key(path) for path in own]
    for sample_keys in (whole, [os.path.splitext(key)[0] for key in whole]):
        known = _numbers(sample_keys)
        _fill(found, keys, lambda key, known=known: known.get(key, -1))  # type: ignore[misc]
        prefix = _prefix(known, [key for key, at in zip(keys, found, strict=True) if at == -1])
        if prefix:
            _fill(found, keys, lambda key, known=known, prefix=prefix: (  # type: ignore[misc]
                known.get(key[len(prefix):], -1) if key.startswith(prefix) else -1
            ))  # fmt: skip
    for sample_keys in (whole, [os.path.splitext(key)[0] for key in whole]):
        for depth in {key.count("/") for key, at in zip(keys, found, strict=True) if at == -1 and key}:
            tails = _numbers(["/".join(key.split("/")[-depth - 1 :]) for key in sample_keys])
            _fill(found, keys, lambda key, tails=tails: tails.get(key, -1))  # type: ignore[misc]
    return found


def _fill(found: NDArray[np.int64], keys: Sequence[str], number: Callable[[str], int]) -> None:
    for at in np.flatnonzero(found == -1).tolist():
        found[at] = number(keys[at])


def _numbers(keys: Sequence[str]) -> dict[str, int]:
    known: dict[str, int] = {}
    for number, key in enumerate(keys):
        known[key] = MANY if key in known else number
    return known


def _prefix(known: Mapping[str, int], keys: Sequence[str]) -> str:
    """Return the folders in front of the first key without which it is known, '' for none."""
    parts = keys[0].split("/") if keys else []
    for cut in range(1, len(parts)):
        if known.get("/".join(parts[cut:]), -1) >= 0:
            return "/".join(parts[:cut]) + "/"
    return ""


def _key(path: str) -> str:
    """Return a path as it is compared: with slashes, composed, without case."""
    try:
        path.encode()
    except UnicodeEncodeError:  # the bytes of a name that is not UTF-8
        path = os.fsencode(path).decode("cp1252", errors="replace")
    path = path.strip().replace("\\", "/").removeprefix("./")
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def _said(written: Sequence[str], meant: Sequence[str]) -> list[str]:
    text, path = written[0], meant[0]
    why = "Unicode composition" if unicodedata.normalize("NFC", text) == unicodedata.normalize("NFC", path) else ""
    why = why or ("upper and lower case" if text.casefold() == path.casefold() else "")
    example = f"they differ in {why}, for example {path!r}" if why else f"for example {text!r} for {path!r}"
    return [f"{len(written):,} paths are written unlike those of the samples, each like exactly one: {example}"]
