"""Note which English text each Korean page was translated from: docs/ko/translated.json.

    python docs/korean.py    # after the Korean pages were brought up to date

Numbers do not count: a measurement that was made again leaves a translation as it is.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

HERE = Path(__file__).parent
NOTED = HERE / "ko" / "translated.json"
PAGES = {  # a Korean page -> the English ones that it follows
    "index.md": ("index.md",),
    "start.md": ("start/install.md", "start/demo.md"),
    "own-folder.md": ("start/images.md",),
    "one-label.md": ("start/images.md", "howto/few-labels.md"),
    "survey.md": ("survey/index.md",),
}


def digests() -> dict[str, dict[str, str]]:
    """Return for each Korean page the digests of the English ones, without their numbers and line breaks."""
    return {page: {name: digest((HERE / name).read_text()) for name in names} for page, names in PAGES.items()}


def digest(text: str) -> str:
    words = re.sub(r"[-+±]?\d[\d.,]*", "#", text).split()
    return hashlib.sha256(" ".join(words).encode()).hexdigest()[:16]


if __name__ == "__main__":
    NOTED.write_text(json.dumps(digests(), indent=2) + "\n")
    print(NOTED)
