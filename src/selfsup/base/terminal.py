"""The standard streams as a service, cron or an old terminal leaves them: closed, or unable to show most characters."""

from __future__ import annotations

import codecs
import io
import os
import sys

PLAIN = str.maketrans({
    "±": "+-", "×": "x", "–": "-", "—": "-", "…": "...", "→": "->", "≥": ">=", "≤": "<=", "·": "-", "°": " deg",
    "’": "'", "‘": "'", "“": '"', "”": '"', "−": "-",
})  # fmt: skip


def ready_streams() -> None:
    """Open the standard streams that are closed on /dev/null, and let them write any character somehow.

    A file opened later would otherwise get the number of a closed stream, and what anything writes to that would end
    in the file. What an encoding lacks is written plainly (± as +-) or as an escape, not an error.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, this one
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (while the process lives)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="selfsup.plain")


def _plainly(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(PLAIN)
    return text.encode("ascii", "backslashreplace").decode(), error.end


codecs.register_error("selfsup.plain", _plainly)
