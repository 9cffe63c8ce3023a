"""One self-contained HTML file: text is escaped by default, nothing is loaded, nothing but our own script may run."""

from __future__ import annotations

import base64
import hashlib
import html
import io
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import NamedTuple

from PIL import Image


class Html(str):
    """Markup that is safe as it stands; any other string is escaped where it becomes part of a page."""


class Section(NamedTuple):
    """A part of the page: `name` is the anchor, `title` the heading."""

    name: str
    title: str
    body: Html


def escape(text: object) -> Html:
    """Return text as markup, in element content and in attributes. Surrogates become \\udc.. escapes."""
    if isinstance(text, Html):
        return text
    return Html(html.escape(str(text).encode(errors="backslashreplace").decode()))


def tag(name: str, /, *content: object, **attributes: object) -> Html:
    """Return an element; `class_` is the class, underscores in other attribute names become hyphens."""
    written = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in attributes.items())
    return Html(f"<{name}{written}>{join(content)}</{name}>")


def join(parts: Iterable[object], between: str = "") -> Html:
    """Return several pieces of text and markup as one."""
    return Html(between.join(escape(part) for part in parts))


def table(head: Sequence[object], rows: Iterable[Sequence[object]], caption: str = "", css: str = "data") -> Html:
    """Return a table of the CSS class `css` whose first column names the rows; it scrolls where it is too wide."""
    top = tag("tr", *(tag("th", cell, scope="col") for cell in head))
    lines = [
        tag("tr", tag("th", first, scope="row"), *(cell if _is_cell(cell) else tag("td", cell) for cell in rest))
        for first, *rest in rows
    ]
    words = tag("caption", caption) if caption else ""
    whole = tag("table", words, tag("thead", top) if head else "", tag("tbody", *lines), class_=css)
    return tag("div", whole, class_="wide", tabindex="0", role="region", aria_label=caption or "table")


def _is_cell(cell: object) -> bool:
    return isinstance(cell, Html) and cell.startswith("<td")


def embedded(image: Image.Image, alt: str, side: int = 96) -> Html:
    """Return an inlined image of at most `side` pixels a side, as PNG or JPEG, whichever is smaller."""
    small = image.convert("RGB")
    small.thumbnail((side, side))
    buffers = {"image/png": io.BytesIO(), "image/jpeg": io.BytesIO()}
    small.save(buffers["image/png"], "png", optimize=True)
    small.save(buffers["image/jpeg"], "jpeg", optimize=True, quality=85)
    mime, data = min(((mime, buffer.getvalue()) for mime, buffer in buffers.items()), key=lambda item: len(item[1]))
    return image_tag(data, mime, alt, small.width, small.height)


def image_tag(data: bytes, mime: str, alt: str, width: int, height: int) -> Html:
    """Return an inlined image of a MIME type and a size in pixels."""
    return Html(f'<img src="{data_uri(data, mime)}" alt="{escape(alt)}" width="{width}" height="{height}">')


def data_uri(data: bytes, mime: str) -> Html:
    """Return a file of a MIME type (image/png, audio/wav) as an address that holds it."""
    return Html(f"data:{mime};base64,{base64.b64encode(data).decode()}")


def captioned(image: Image.Image, alt: str, caption: object) -> Html:
    """Return an image with a line of text below it."""
    return tag("figure", embedded(image, alt), tag("figcaption", caption))


def page(title: str, lead: object, sections: Sequence[Section], contents: bool = True) -> bytes:
    """Return the whole file. A content security policy forbids all requests, and every script but this page's own."""
    style, script = (files("selfsup.reports").joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    media = "style-src 'unsafe-inline'; img-src data:; media-src data:"
    policy = f"default-src 'none'; {media}; script-src 'sha256-{allowed}'"
    links = tag("nav", *(tag("a", s.title, href=f"#{s.name}") for s in sections), aria_label="Contents")
    body = [
        tag("section", tag("h2", s.title, id=f"{s.name}-title"), s.body, id=s.name, aria_labelledby=f"{s.name}-title")
        for s in sections
    ]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>{style}</style>
</head>
<body>
<header>{tag("h1", title)}{escape(lead)}{links if contents else ""}</header>
<main>
{join(body, chr(10))}
</main>
<script>{script}</script>
</body>
</html>
""".encode()
