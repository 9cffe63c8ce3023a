"""Labels inside of samples: which phone is spoken from 1.20 to 1.28 s, what happens in which second of a video.

They come from a table with a row for each interval (path, start, end, label; seconds) or from Praat's TextGrids. Labels
are read by the rule of `selfsup.data.labels`; what lies between intervals, or has an empty label, has none.
"""

from __future__ import annotations

import copy
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from selfsup.base.notes import say, say_notes
from selfsup.base.paths import expanded
from selfsup.data.encoding import about_encodings
from selfsup.data.index import find_files, pack
from selfsup.data.label_tables import (
    LABELS,
    PATHS,
    known_column,
    matched_files,
    numbered_column,
    sample_paths,
    split_columns,
    whole_column,
)
from selfsup.data.label_values import read_labels
from selfsup.data.paths import find_paths
from selfsup.data.tables import Table, open_table, plain
from selfsup.data.textgrid import TextGrid, Tier, read_textgrid
from selfsup.errors import UserError
from selfsup.source import Annotations, Broken, Labels, Source

if TYPE_CHECKING:
    AnnotationsGiven = str | os.PathLike[str] | Annotations
else:
    AnnotationsGiven = str  # what the command line can give

COLUMNS = {  # the names under which columns are found, the preferred one first
    "path": PATHS,
    "start": ("start", "onset", "begin", "start time", "begin time", "start s", "begin s", "tmin", "xmin", "from"),
    "end": ("end", "offset", "stop", "end time", "stop time", "end s", "stop s", "tmax", "xmax", "to"),
    "label": (*LABELS, "event label", "event", "phone", "phoneme", "word", "text", "annotation"),
}
GRID = ".textgrid"
TIER = "tier"  # the name, beside those of columns, that chooses a tier of TextGrids
HELP = "a CSV file (path,start,end,label; in seconds) or a folder of TextGrids"
ROUNDED = 0.1, 0.01  # seconds, or this part of its length, by which the end of a sample may be written wrongly


class _Rows(NamedTuple):
    """Intervals (M,) of samples: which sample, from when to when, and its label."""

    owners: NDArray[np.int64]
    starts: NDArray[np.float64]
    ends: NDArray[np.float64]
    labels: Labels


def with_annotations(source: Source, given: AnnotationsGiven) -> Source:
    """Return the source with `frame_labels`; what was done to read them is in its `notes`, and is said."""
    annotated: Any = copy.copy(source)
    if isinstance(given, Annotations):
        if len(given.lengths) != len(source):
            raise UserError(f"annotations of {len(given.lengths)} samples for the {len(source)} of {source.name}")
        annotated.frame_labels = given
    elif not isinstance(given, str | os.PathLike):
        raise UserError(f"labels inside of samples are {HELP}, or in Python Annotations, not {type(given).__name__}")
    else:
        annotated.frame_labels = read_annotations(given, source)
        annotated.notes = (*getattr(source, "notes", ()), *annotated.frame_labels.notes)
    say_notes(annotated)
    return annotated


def read_annotations(path: str | os.PathLike[str], source: Source) -> Annotations:
    """Return the labels inside of the samples of a source.

    Args:
        path: A table (.csv, .tsv) with the columns path, start, end and label, times in seconds from the beginning of
            a sample, to which `:path=COLUMN,start=COLUMN,end=COLUMN,label=COLUMN` may be added; or a folder of
            TextGrids at any depth, named as the samples but for the suffix, to which `:tier=NAME` may be added; by
            default the first tier of intervals is read.
        source: Any source whose samples have a length in time.

    Raises:
        UserError: For paths that the source does not have, times that are no numbers or out of order, and where there
            is no label at all.
    """
    name, columns = split_columns(expanded(path, "--labels"), (*COLUMNS, TIER))
    lengths = np.full(len(source), np.nan)
    if os.path.isdir(name) or name.lower().endswith(GRID):
        if columns.keys() - {TIER}:
            raise UserError(f"{name}: --columns of TextGrids names their tier, tier=NAME")
        rows, notes = _read_grids(name, columns.get(TIER), source, lengths)
    elif os.path.isfile(name):
        if TIER in columns:
            raise UserError(f"{name}: --columns tier=NAME is for a folder of TextGrids")
        rows, notes = _read_table(name, columns, source)
    else:
        raise UserError(f"no such file or folder: {name!r}; give {HELP}")
    if not rows.labels.classes:
        raise UserError(f"{name} gives no label to any part of a sample of {source.name}")
    told = [note.replace("samples have no label", "intervals have no label") for note in rows.labels.notes]
    rows, more = _apart(rows, source)
    if without := len(source) - len(np.unique(rows.owners)):
        more.append(f"{without:,} of {len(source):,} samples have no label inside")
    found = tuple(f"{name}: {note}" for note in (*notes, *told, *more))
    return Annotations.of(*rows, lengths, found)


def check_lengths(annotations: Annotations, durations: NDArray[np.float64], source: Source) -> Annotations:
    """Return the annotations without those of samples that are not as long as they say, which is said and noted.

    `durations` (N,): how long each sample is, in seconds; nan where nobody knows. Raises `UserError` if more than half
    of the annotated samples are such: then the times are no seconds, or the files are of other samples.
    """
    last = np.full(len(durations), -np.inf)
    np.maximum.at(last, annotations.owners, annotations.ends)
    room = np.maximum(ROUNDED[0], ROUNDED[1] * durations)
    with np.errstate(invalid="ignore"):
        wrong = (last > durations + room) | (np.abs(annotations.lengths - durations) > room)
    annotated = np.isfinite(last)
    wrong &= annotated
    if not wrong.any():
        return annotations
    some = int(np.flatnonzero(wrong)[0])
    said = np.fmax(annotations.lengths, last)[some]
    example = f"{source.path(some)!r} is {durations[some]:.2f} s long, and annotated as if it were {said:.2f} s"
    if 2 * wrong.sum() > annotated.sum():
        raise UserError(
            f"{wrong.sum():,} of {annotated.sum():,} annotated samples of {source.name} have another length than their "
            f"annotations say: {example}; are the times in seconds, and of these files?"
        )
    keep = ~wrong[annotations.owners]
    note = f"{source.name}: {wrong.sum():,} samples are annotated for another length, and left out: {example}"
    say(note)
    return Annotations.of(
        annotations.owners[keep], annotations.starts[keep], annotations.ends[keep],
        Labels(annotations.ids[keep], annotations.classes), annotations.lengths,
        (*annotations.notes, note),
    )  # fmt: skip


def _read_table(path: str, columns: Mapping[str, str], source: Source) -> tuple[_Rows, list[str]]:
    try:
        table = open_table(path)
        place = _places(table, columns)
        header = _seconds(table.first[place["start"]].encode()) is None
        batches = list(table.batches([place[what] for what in COLUMNS], header))
    except (pa.ArrowException, KeyError, ValueError, OSError) as error:
        reason = str(error.args[0] if error.args else error).splitlines()[0]
        raise UserError(f"{path} must be a CSV file with the columns {','.join(COLUMNS)}: {reason}") from None
    given, starts, ends, written = (whole_column(batches, number) for number in range(len(COLUMNS)))
    paths = given.dictionary_encode()
    samples, notes = find_paths(sample_paths(source), paths.dictionary, path, source.name)
    times = [_times(path, what, cells, given) for what, cells in (("start", starts), ("end", ends))]
    _check_order(path, given, *times)
    said = {what: table.first[number] for what, number in place.items() if table.first[number] != what}
    if header and said and not columns:
        read = ", ".join(f"{name!r} as {what}" for what, name in said.items())
        notes = [f"the columns were read so: {read}", *notes]
    elif not header:
        notes = ["it has no header: columns were read by their numbers", *notes]
    rows = _Rows(samples[paths.indices.to_numpy()], times[0], times[1], read_labels(written))
    return rows, [*table.notes("\t" if path.lower().endswith(".tsv") else ","), *notes]


def _places(table: Table, columns: Mapping[str, str]) -> dict[str, int]:
    """Return the places of the four columns, by the names that were given or that are known."""
    bare = len(columns) == len(COLUMNS) and all(name.isdecimal() for name in columns.values())  # there is no header
    place = {
        what: int(name) - 1 if bare and 0 < int(name) <= len(table.first) else numbered_column(table, name)
        for what, name in columns.items()
    }
    for what, names in COLUMNS.items():
        if what in place:
            continue
        found = known_column(table.first, names)
        if found is None:
            there = ", ".join(repr(cell) for cell in table.first[:20])
            raise UserError(
                f"{table.path} must be a CSV file with the columns {','.join(COLUMNS)}, and none of its columns "
                f"({there}) is known as the {what}: name them with --columns "
                + ",".join(f"{one}=COLUMN" for one in COLUMNS)
            )
        place[what] = found
    if len(set(place.values())) < len(place):
        raise UserError(f"{table.path}: two of {', '.join(COLUMNS)} are the same column; name others with --columns")
    return place


def _seconds(cell: bytes) -> float | None:
    try:
        found = float(cell)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def _times(path: str, what: str, cells: pa.Array, given: pa.Array) -> NDArray[np.float64]:
    found = [_seconds(cell) for cell in cells.to_pylist()]
    for number, seconds in enumerate(found):
        if seconds is None or seconds < 0:
            cell, sample = (os.fsdecode(column[number].as_py()) for column in (cells, given))
            raise UserError(f"{path}: the {what} {cell!r} in {sample!r} is not a number of seconds from 0 on")
    return np.array(found, np.float64)


def _check_order(path: str, given: pa.Array, starts: NDArray[np.float64], ends: NDArray[np.float64]) -> None:
    wrong = np.flatnonzero(ends < starts)
    if len(wrong):
        some = int(wrong[0])
        sample = os.fsdecode(given[some].as_py())
        raise UserError(
            f"{path}: {len(wrong):,} intervals end before they begin, for example in {sample!r} from {starts[some]:g} "
            f"to {ends[some]:g} s: are the columns exchanged, or is the second a length?"
        )


def _read_grids(name: str, tier: str | None, source: Source, lengths: NDArray[np.float64]) -> tuple[_Rows, list[str]]:
    """Return the intervals of TextGrids; writes how long they say that samples are into `lengths`."""
    root, files = (name, find_files(name, [GRID])) if os.path.isdir(name) else (os.path.split(name)[0], None)
    names = [os.fsencode(os.path.basename(name))] if files is None else files.to_pylist()
    if not names:
        raise UserError(f"no TextGrids below {name!r}; give {HELP}")
    owners = matched_files(names, name, source, "TextGrid")
    reasons, encodings, chosen = Counter[str](), Counter[str](), Counter[str]()
    rows: list[tuple[int, float, float, bytes]] = []
    others: dict[str, None] = {}
    for file, owner in zip(names, owners.tolist(), strict=True):
        try:
            grid = read_textgrid(os.path.join(os.fsencode(root), file))
            found = _tier(grid, tier)
        except Broken as error:
            reasons[str(error)] += 1
            continue
        if any(end < start or start < 0 for start, end, _ in found.intervals):
            reasons["intervals that end before they begin"] += 1
            continue
        encodings[grid.encoding] += 1
        chosen[found.name] += 1
        others |= dict.fromkeys(one.name for one in grid.tiers if one.name != found.name)
        lengths[owner] = grid.end
        rows += [(owner, start, end, os.fsencode(text)) for start, end, text in found.intervals]
    notes = about_encodings(encodings, "TextGrids")
    if reasons:
        told = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common(4))
        if not chosen:
            raise UserError(f"none of the {len(names):,} TextGrids of {name} can be read: {told}")
        notes.append(f"{sum(reasons.values()):,} of {len(names):,} TextGrids are left out: {told}")
    if len(chosen) > 1 or (others and tier is None):
        read = ", ".join(f"{one!r} ({count:,})" for one, count in chosen.most_common(4))
        left = ", ".join(map(repr, list(others)[:6])) or "none"
        notes.append(f"the tier {read} was read; others: {left} (--columns tier=NAME)")
    columns = [np.array(column) for column in zip(*(row[:3] for row in rows), strict=True)]
    if not columns:
        raise UserError(f"the TextGrids of {name} have no intervals in the tier {next(iter(chosen))!r}")
    return _Rows(columns[0], columns[1], columns[2], read_labels(pack(row[3] for row in rows))), notes


def _tier(grid: TextGrid, name: str | None) -> Tier:
    found = [tier for tier in grid.tiers if name is None or plain(tier.name) == plain(name)]
    if not found:
        if name is not None and grid.tiers:
            raise Broken(f"without a tier {name!r} of intervals: {', '.join(repr(tier.name) for tier in grid.tiers)}")
        raise Broken("without a tier of intervals")
    return found[0]


def _apart(rows: _Rows, source: Source) -> tuple[_Rows, list[str]]:
    """Return the labelled intervals, none of which overlap: where two labels are given at once, there is none."""
    owners, starts, ends, ids = rows.owners, rows.starts, rows.ends, rows.labels.ids
    labelled, lasting = ids >= 0, ends > starts
    notes = []
    if empty := int((labelled & ~lasting).sum()):
        notes.append(f"{empty:,} intervals end when they begin, and label nothing")
    order = np.lexsort((starts, owners))
    order = order[(labelled & lasting)[order]]
    owners, starts, ends, ids = owners[order], starts[order], ends[order], ids[order]
    reach = np.concatenate([[-np.inf], _running_max(owners, ends)[:-1]])[: len(order)]
    crossed = np.flatnonzero((starts < reach - 1e-6) & (np.diff(owners, prepend=-1) == 0))
    if len(crossed):
        pieces, lost = [np.stack([owners, starts, ends, ids], 1)[~np.isin(owners, owners[crossed])]], 0
        for owner in np.unique(owners[crossed]).tolist():
            mine = owners == owner
            found, met = _sweep(zip(starts[mine].tolist(), ends[mine].tolist(), ids[mine].tolist(), strict=True))
            pieces.append(np.array([(owner, *piece) for piece in found]).reshape(-1, 4))
            lost += met
        if lost:
            path, when = source.path(int(owners[crossed[0]])), starts[crossed[0]]
            notes.append(
                f"{lost:,} intervals overlap one with another label, for example in {path!r} at {when:g} s: while they "
                "do, there is no label"
            )
        owners, starts, ends, ids = np.concatenate(pieces).T
    labels = Labels(ids.astype(np.int64), rows.labels.classes)
    return _Rows(owners.astype(np.int64), starts, ends, labels), notes


def _running_max(owners: NDArray[np.int64], ends: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the latest end so far among the intervals of the same sample; samples lie one after another."""
    if not len(ends):
        return ends
    step = float(ends.max()) + 1
    place = np.cumsum(np.diff(owners, prepend=owners[0]) != 0)
    found: NDArray[np.float64] = np.maximum.accumulate(ends + step * place) - step * place
    return found


def _sweep(intervals: Iterable[tuple[float, float, int]]) -> tuple[list[tuple[float, float, int]], int]:
    """Return the pieces of one sample's time that have exactly one label, and how many intervals meet another label."""
    edges = []
    for number, (start, end, label) in enumerate(intervals):
        edges += [(start, 1, label, number), (end, 0, label, number)]
    active: dict[int, set[int]] = {}  # by label the intervals that have begun
    pieces, met, before = [], set(), 0.0
    for time, begins, label, number in sorted(edges):
        if time > before and len(active) == 1:
            pieces.append((before, time, next(iter(active))))
        elif time > before and active:
            met |= set().union(*active.values())
        before = time
        if begins:
            active.setdefault(label, set()).add(number)
        elif number in active.get(label, ()):
            active[label].discard(number)
            if not active[label]:
                del active[label]
    return pieces, len(met)
