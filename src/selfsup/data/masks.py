"""Labels of the places of images: a folder of label images, each with the path of its image but for the suffix.

A value of a label image, grey or a place of its palette, is the number of a class; 255 means no label, unless it has a
name. Names are in `classes.csv` (number,name) or `classes.json` (a list, or names by number) in that folder.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from selfsup.base.notes import say_notes
from selfsup.base.paths import expanded
from selfsup.data.image.decode import read_mask
from selfsup.data.index import find_files
from selfsup.data.label_tables import known_column, matched_files, whole_column
from selfsup.data.tables import open_table
from selfsup.errors import UserError
from selfsup.source import Masks, Source

if TYPE_CHECKING:
    MasksGiven = str | os.PathLike[str] | Masks | NDArray[Any]
else:
    MasksGiven = str  # what the command line can give

SUFFIXES = (".png", ".bmp", ".gif", ".tif", ".tiff", ".pgm", ".npy")  # that keep numbers as they are
IGNORED = 255
NUMBER = ("number", "id", "value", "index", "class id", "label id")
NAME = ("name", "class", "label", "class name", "label name", "category")
HELP = "a folder of label images (PNG, a class by its number), named as the images"


def with_masks(source: Source, given: MasksGiven) -> Source:
    """Return the source with `masks`; what was done to find them is in its `notes`, and is said.

    Args:
        source: Images.
        given: A folder of label images at any depth (see the module), `Masks`, or an array (N, H, W) of whole numbers,
            of which 255 and negative ones mean no label.

    Raises:
        UserError: For data of another kind, and for masks of images that the source does not have.
    """
    if source.kind != "image":
        raise UserError(f"masks are labels of images, and {source.name} is of the kind {source.kind}")
    masked: Any = copy.copy(source)
    if isinstance(given, str | os.PathLike):
        masked.masks = find_masks(expanded(given, "--labels"), source)
        masked.notes = (*getattr(source, "notes", ()), *masked.masks.notes)
    elif isinstance(given, Masks):
        masked.masks = given
    elif isinstance(given, np.ndarray) and given.ndim == 3 and given.dtype.kind in "bui":
        masked.masks = Masks(np.arange(len(given)), lambda number: _without(given[number], {}), {}, "array")
    else:
        raise UserError(f"masks are {HELP}, or in Python an array (N, H, W) of whole numbers")
    if len(masked.masks.numbers) != len(source):
        raise UserError(f"{len(masked.masks.numbers):,} masks for the {len(source):,} images of {source.name}")
    say_notes(masked)
    return masked


def find_masks(folder: str, source: Source) -> Masks:
    """Return the masks in a folder; images without one are counted in the notes."""
    if not os.path.isdir(folder):
        raise UserError(f"no such folder: {folder!r}; give {HELP}")
    files = find_files(folder, SUFFIXES)
    if not len(files):
        raise UserError(f"no label images below {folder!r} (looked for {' '.join(SUFFIXES)}); give {HELP}")
    owners = matched_files(files.to_pylist(), folder, source, "mask")
    numbers = np.full(len(source), -1)
    numbers[owners] = np.arange(len(owners))
    names, notes = class_names(folder)
    if missing := int((numbers < 0).sum()):
        notes = [*notes, f"{missing:,} of {len(source):,} images have no mask, and are left out"]
    root = os.fsencode(os.path.abspath(folder))

    def of(number: int) -> NDArray[Any]:
        return _without(read_mask(os.path.join(root, files[number].as_py())), names)

    return Masks(numbers, of, names, folder, tuple(f"{folder}: {note}" for note in notes))


def class_names(folder: str) -> tuple[dict[int, str], list[str]]:
    """Return the names of classes by number, and notes on how they were read; none where the folder has none."""
    table, plain = (os.path.join(folder, name) for name in ("classes.csv", "classes.json"))
    if os.path.isfile(table):
        return _named(table, _rows(table)), []
    if os.path.isfile(plain):
        try:
            with open(plain, encoding="utf-8") as file:
                found = json.load(file)
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{plain} is not JSON: {str(error).splitlines()[0]}") from None
        if not isinstance(found, list | dict):
            raise UserError(f"{plain} holds neither a list of names nor names by number")
        return _named(plain, list(found.items() if isinstance(found, dict) else enumerate(found))), []
    return {}, ["there is no classes.csv (number,name): classes are called by their numbers"]


def _without(mask: NDArray[Any], names: Mapping[int, str]) -> NDArray[np.int64]:
    """Return a mask with -1 where a pixel has no label."""
    found = mask.astype(np.int64)
    return found if IGNORED in names else np.where(found == IGNORED, -1, found)


def _rows(path: str) -> list[tuple[str, str]]:
    try:
        table = open_table(path)
        number, name = known_column(table.first, NUMBER), known_column(table.first, NAME)
        header = number is not None and name is not None
        if not header and len(table.first) != 2:
            raise UserError(f"{path} must have the columns number,name, not {', '.join(map(repr, table.first[:8]))}")
        places = [number, name] if number is not None and name is not None else [0, 1]
        batches = list(table.batches(places, header))
    except (pa.ArrowException, KeyError, ValueError, OSError) as error:
        raise UserError(
            f"{path} must be a CSV file with the columns number,name: {str(error).splitlines()[0]}"
        ) from None
    columns = [whole_column(batches, place).to_pylist() for place in (0, 1)]
    return [(os.fsdecode(one), os.fsdecode(other)) for one, other in zip(*columns, strict=True) if one or other]


def _named(path: str, rows: list[tuple[Any, Any]]) -> dict[int, str]:
    names: dict[int, str] = {}
    for number, name in rows:
        if not str(number).strip().isdecimal():
            raise UserError(f"{path}: the number of a class is a whole number from 0 on, not {number!r}")
        if not isinstance(name, str) or not name.strip():
            raise UserError(f"{path}: the class {number} has no name")
        if int(number) in names:
            raise UserError(f"{path} names the class {number} twice")
        names[int(number)] = name.strip()
    if len(set(names.values())) < len(names):
        raise UserError(f"{path} gives two classes the same name")
    return names
