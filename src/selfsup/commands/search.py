"""`search`: the nearest items of an embedding file. Imports torch only when it is called."""

from __future__ import annotations

import os
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfsup.base.checks import check_new_image, check_numbers
from selfsup.base.paths import user_path
from selfsup.commands.given import Embeddings, RunName, Target

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image
    from torch import Tensor

    from selfsup.reports.search import Found

    Query = str | os.PathLike[str] | int | Image | NDArray[Any] | Tensor
else:
    Query = str  # what the command line can give


def search(
    embeddings: Embeddings,
    query: Query,
    /,
    *,
    k: int = 10,
    run: RunName | None = None,
    data: str | None = None,
    out: Target | None = None,
    device: str = "auto",
) -> Found:
    """Find the items that are nearest to a query, by cosine similarity.

    A file is read in batches, so memory does not grow with it, and every item is compared; of an index (`selfsup
    index`), which is for very many, only a few are.

    Args:
        embeddings: A file that `selfsup embed` wrote, a folder of such parts, or an index of them.
        query: The number of a row or a path in the file (the item itself is left out of the answer), or what the
            encoder takes: an image file, in Python also an image (an array, a tensor or one of Pillow); for texts a
            sentence or a .txt file.
        k: How many items to find.
        run: The run folder that embeds the image; by default the one that the file names.
        data: Where the images of the contact sheet are; by default the data that the file names.
        out: A contact sheet to write (.png, .jpg or .webp, in which clips move): the query, then the items.
        device: auto, cpu, cuda or mps; for embedding the image.

    Raises:
        UserError: For a file that `embed` did not write, an index whose embeddings have changed, a query that is not
            there or not readable, a run that does not fit the file.
        RunFailed: If the contact sheet cannot be written.
    """
    from selfsup.neighbours.index import open_vectors
    from selfsup.reports.search import find_nearest, write_sheet

    check_numbers(k=k)
    path = None if out is None else _sheet_path(user_path(out))
    (file, where), wanted = open_vectors(embeddings), query
    if isinstance(query, str | os.PathLike):
        wanted = os.fspath(query)
    elif isinstance(query, Integral):
        wanted = str(query)
    found = find_nearest(file, where, wanted, k, run, device)
    return found if path is None else write_sheet(path, file, wanted, found, data)


def _sheet_path(path: Path) -> Path:
    check_new_image(path)
    return path
