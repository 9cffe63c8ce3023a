"""`explore`: the map of an embedding file in a browser. Imports torch only when it is called."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from selfsup.base.checks import check_new_file, check_numbers
from selfsup.base.paths import user_path
from selfsup.commands.given import Embeddings, Target

if TYPE_CHECKING:
    from selfsup.reports.explore import Explored


def explore(
    embeddings: Embeddings, /, *, out: Target | None = None, data: str | None = None, seed: int = 0
) -> Explored | None:
    """Open the map of an embedding file in a browser.

    If embedding-atlas is installed (the extra `explore`), it serves every row until it is stopped. Otherwise, or with
    -o, a page with a map of up to 2,000 rows is written, which needs no server and no network.

    Args:
        embeddings: A file that `selfsup embed` wrote, a folder of such parts, or an index of them.
        out: The page to write; explore.html where embedding-atlas is not installed.
        data: Where the samples on the page are; by default the data that the file names.
        seed: Which rows the page shows.

    Raises:
        UserError: For a file that `embed` did not write.
        RunFailed: If the page cannot be written, or embedding-atlas fails.
    """
    from selfsup.neighbours.index import open_vectors
    from selfsup.reports.explore import serve_map, write_map

    check_numbers(seed=seed)
    file, _ = open_vectors(embeddings)
    if out is None and find_spec("embedding_atlas") is not None:
        serve_map(file)
        return None
    path = user_path(out) if out is not None else Path("explore.html")
    check_new_file(path)
    written = write_map(file, path, data, seed)
    if out is not None:
        return written
    hint = "with every row, in embedding-atlas: pip install 'selfsup[explore]'"
    return replace(written, note="\n".join(filter(None, [written.note, hint])))
