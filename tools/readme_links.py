"""Make the links and images of README.md absolute, at a tag of a repository: PyPI shows the text without its files.

python tools/readme_links.py https://github.com/OWNER/NAME v0.1.0    # rewrites README.md, in the release workflow
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"
LINK = re.compile(r"(!?\[[^\]]*\]\()(?!\w+:|#)([^)\s]+)(?=\))")


def absolute(text: str, repository: str, ref: str) -> str:
    """Return a Markdown text whose links lead to a repository; `raw` gives the bytes of an image, `blob` a page."""

    def target(match: re.Match[str]) -> str:
        return f"{match[1]}{repository}/{'raw' if match[1].startswith('!') else 'blob'}/{ref}/{match[2]}"

    return LINK.sub(target, text)


if __name__ == "__main__":
    README.write_text(absolute(README.read_text(), *sys.argv[1:]))
