"""The image that a query of `search` means."""

from __future__ import annotations

import os

import pyarrow as pa

from selfsup.data.image.sources import Files
from selfsup.errors import UserError
from selfsup.source import Broken


def open_query(text: str) -> Files:
    """Return the image file; raise `UserError` if it cannot be read."""
    if not os.path.isfile(text):
        raise UserError(f"{text!r} is not a row number, not a path in the file and not an image file")
    folder, name = os.path.split(os.path.abspath(text))
    source = Files(folder, pa.array([os.fsencode(name)], pa.binary()), name=text)
    try:
        source.read(0)
    except Broken as error:
        raise UserError(f"cannot read the image {text!r}: {error}") from None
    return source
