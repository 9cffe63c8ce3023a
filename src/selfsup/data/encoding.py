"""From the bytes of a text file to text, by one rule that is stated here.

1. A byte order mark decides: UTF-8, UTF-16 or UTF-32.
2. Without one, a file of which every second byte (or three of four) is mostly NUL is UTF-16 (or UTF-32).
3. What decodes as UTF-8 is UTF-8, and so is a file with damaged bytes that holds at least as many whole characters
   beyond ASCII; the damaged ones are replaced.
4. Anything else is Windows-1252 (which contains Latin-1), if every byte has a meaning there and at most a quarter are
   beyond ASCII: more is another alphabet, or no text at all, and is treated as damaged UTF-8, which is refused.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Mapping

UTF8 = "utf-8"
WESTERN = "cp1252"
NAMES = {
    WESTERN: "Windows-1252, not UTF-8", "utf-16": "UTF-16", "utf-16-le": "UTF-16", "utf-16-be": "UTF-16",
    "utf-32": "UTF-32", "utf-32-le": "UTF-32", "utf-32-be": "UTF-32",
}  # fmt: skip
BLOCK = 1 << 20
BEYOND_ASCII = 0.25  # the largest fraction of such bytes in Western European text
MARKS = (  # the longer ones first: that of UTF-32 begins like that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF8, UTF8),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_ASCII, _UNDEFINED = bytes(range(128)), b"\x81\x8d\x8f\x90\x9d"


def encoding_of(blocks: Iterable[bytes]) -> str:
    """Return the encoding of the bytes of a file, given in blocks: a name that Python's codecs know."""
    decoder = codecs.getincrementaldecoder(UTF8)(errors="replace")
    size = beyond = undefined = damaged = whole = 0
    for number, block in enumerate(blocks):
        if number == 0:
            found = next((name for mark, name in MARKS if block.startswith(mark)), None) or _wide(block)
            if found:
                return found
        size += len(block)
        if block.isascii() and not decoder.getstate()[0]:
            continue
        high = block.translate(None, delete=_ASCII)
        beyond, undefined = beyond + len(high), undefined + len(high) - len(high.translate(None, delete=_UNDEFINED))
        text = decoder.decode(block)
        bad = text.count("\N{REPLACEMENT CHARACTER}")
        damaged += bad
        whole += len(text) - len(text.encode("ascii", "ignore")) - bad if bad else len(high) // 2
    damaged += len(decoder.decode(b"", final=True))
    western = damaged > whole and not undefined and beyond <= BEYOND_ASCII * size
    return WESTERN if western else UTF8


def file_encoding(path: str) -> str:
    """Return the encoding of a file."""
    with open(path, "rb") as file:
        return encoding_of(iter(lambda: file.read(BLOCK), b""))


def to_utf8(raw: bytes, encoding: str) -> bytes:
    """Return bytes in UTF-8 without a mark. Those without a meaning remain bytes that are not UTF-8."""
    if encoding == UTF8:
        return raw.removeprefix(codecs.BOM_UTF8)
    return _invalid(raw.decode(encoding, errors="replace"))


def read_lines(path: str, encoding: str) -> Iterator[bytes]:
    """Yield the lines of a file in UTF-8, without their ends and without a mark.

    Lines end in \\n or \\r\\n; in a file without these, in \\r, as on old Macs.
    """
    if encoding == UTF8:
        with open(path, "rb") as file:
            old = _is_old(file.read(BLOCK))
            file.seek(0)
            for number, line in enumerate(file):
                whole = (line.removeprefix(codecs.BOM_UTF8) if number == 0 else line).rstrip(b"\r\n")
                yield from whole.split(b"\r") if old else [whole]
    else:
        with open(path, encoding=encoding, errors="replace", newline="\n") as file:
            old = _is_old(file.read(BLOCK).encode(errors="replace"))
            file.seek(0)
            for text in file:
                yield from map(_invalid, text.rstrip("\r\n").split("\r") if old else [text.rstrip("\r\n")])


def about_encodings(counts: Mapping[str, int], what: str) -> list[str]:
    """Return a line for each encoding but UTF-8; `what` was counted, such as files."""
    told: dict[str, int] = {}
    for encoding, count in counts.items():
        if encoding != UTF8:
            told[NAMES[encoding]] = told.get(NAMES[encoding], 0) + count
    return [f"{count:,} {what} read as {name}" for name, count in told.items()]


def _invalid(text: str) -> bytes:
    return text.encode(errors="replace").replace("\N{REPLACEMENT CHARACTER}".encode(), b"\xff")  # counted as damaged


def _is_old(head: bytes) -> bool:
    return b"\r" in head and b"\n" not in head


def _wide(block: bytes) -> str | None:
    """Return the encoding of characters of two or four bytes without a mark."""
    head = block[: len(block) // 4 * 4]
    zeros = [head[place::4].count(0) for place in range(4)]
    each = len(head) // 4
    if not each or sum(zeros) < len(head) // 4:
        return None
    if sum(zeros) > 0.6 * len(head):
        return "utf-32-le" if zeros[3] == each > zeros[0] else "utf-32-be" if zeros[0] == each > zeros[3] else None
    even, odd = zeros[0] + zeros[2], zeros[1] + zeros[3]
    return "utf-16-le" if odd > 10 * even else "utf-16-be" if even > 10 * odd else None
