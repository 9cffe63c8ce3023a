"""What the site needs beyond mkdocs: files of the repository as pages, nothing from elsewhere, Korean pages.

A link of a page to a file outside of docs/, such as a task's, leads to a page with the file's text: the site is whole
without a network and without a repository.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"(?<=\]\()(?!\w+:)([^)#\s]+)(?=[)#])")
ELSEWHERE = re.compile(r"<(?:script|link|img|iframe|source)[^>]+(?:src|href)=[\"']?(https?:[^\s\"'>]+)")
log = get_plugin_logger("hooks")
LANGUAGES = {".py": "python", ".toml": "toml", ".yml": "yaml"}


def on_files(files: Files, config: Any) -> Files:
    """Add a page for each file of the repository that a page links to."""
    wanted = {
        path
        for page in files.documentation_pages()
        for path in map(outside(page.src_uri), LINK.findall(page.content_string))
        if path
    }
    for path in sorted(wanted):
        files.append(
            File.generated(
                config, f"source/{path}.md" if not path.endswith(".md") else f"source/{path}", content=shown(path)
            )
        )
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Lead links to files outside of docs/ to their pages."""
    here = posixpath.dirname(page.file.src_uri)

    def target(match: re.Match[str]) -> str:
        path = outside(page.file.src_uri)(match[1])
        if not path:
            return match[1]
        return posixpath.relpath(f"source/{path.removesuffix('.md')}.md", here or ".")

    return LINK.sub(target, markdown) if not page.file.src_uri.startswith("source/") else markdown


def on_page_content(html: str, **_: Any) -> str:
    """Keep a number and its interval on one line."""
    return re.sub(r"(?<=\d) ± ?(?=\d)", "\u00a0±\u00a0", html)


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Say that a Korean page is Korean, for screen readers; warn of what comes from elsewhere: an error here."""
    for found in ELSEWHERE.findall(output):
        log.warning(f"{page.file.src_uri} loads {found}, and the site has to be read without a network")
    return output.replace('<html lang="en"', '<html lang="ko"', 1) if page.file.src_uri.startswith("ko/") else output


def outside(page: str) -> Any:
    """Return the function that gives the path in the repository of a link out of docs/, or ''."""

    def path(link: str) -> str:
        found = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), link))
        return "" if found.startswith(("docs/", "..")) or not (ROOT / found).is_file() else found

    return path


def shown(path: str) -> str:
    """Return a file of the repository as a page."""
    text = (ROOT / path).read_text()
    quiet = "---\nsearch:\n  exclude: true\n---\n\n"
    if path.endswith(".md"):
        return quiet + text.replace("](docs/", "](../")
    fence = f"``````{LANGUAGES.get(Path(path).suffix, '')}\n{text.rstrip()}\n``````"
    return f"{quiet}# {Path(path).name}\n\n`{path}`\n\n{fence}\n"
