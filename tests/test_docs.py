"""What docs/data.md lists is what the code reads, and what it says of the data is said in these words."""

import re
from pathlib import Path

import pytest

from selfsup.data.audio import decode as audio
from selfsup.data.image import decode
from selfsup.data.text.open import ASIDE, PLAIN, READERS
from selfsup.data.video import decode as video

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "data.md").read_text()


def table(heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading, without its head."""
    part = TEXT.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("| \n").split(" | ") for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def suffixes(of: str) -> set[str]:
    """Return the suffixes of the rows in which a cell begins with these words."""
    rows = [row for row in table("What is read") if any(cell.startswith(of) for cell in row[1:])]
    return {suffix for row in rows for suffix in re.findall(r"`(\.[^`]+)`", row[0])}


def test_the_table_of_suffixes_is_that_of_the_code() -> None:
    optional = suffixes("an image where")
    assert optional == set(decode.OPTIONAL)
    assert suffixes("an image") - optional == set(decode.ALWAYS)
    assert suffixes("a video") == set(video.SUFFIXES)
    assert suffixes("a sound") == set(audio.SUFFIXES)
    assert suffixes("texts, a document a row") == set(READERS)
    assert suffixes("behind `text:`") | suffixes("a list of images") == set(PLAIN) - {""}
    assert suffixes("refused: unpack") | suffixes("refused, with what") | suffixes("images of a shard") == {
        s for some in ASIDE.values() for s in some
    }


@pytest.mark.parametrize("row", table("What is left out, and where it is said")[:-1], ids=lambda row: row[0])
def test_what_is_left_out_is_said_in_these_words(row: list[str]) -> None:
    words = row[2].strip("`")
    said = [path for path in (ROOT / "src").rglob("*.py") if words in path.read_text()]
    assert said, words
