"""The image that a query of `search` means."""

from __future__ import annotations

import os
from typing import Any

import pyarrow as pa

from selfsup.base.paths import expanded
from selfsup.data.image.files import Files
from selfsup.data.objects import open_object
from selfsup.errors import UserError
from selfsup.source import Broken, Source


def open_query(query: Any) -> Source:
    """Return the image file, or the image that a Python object holds; raise `UserError` if it cannot be read."""
    if not isinstance(query, str):
        return open_object([query])
    text = expanded(query)
    if not os.path.isfile(text):
        raise UserError(f"{text!r} is not a row number, not a path in the file and not an image file")
    folder, name = os.path.split(os.path.abspath(text))
    source = Files(folder, pa.array([os.fsencode(name)], pa.binary()), name=text)
    try:
        source.read(0)
    except Broken as error:
        raise UserError(f"cannot read the image {text!r}: {error}") from None
    return source
