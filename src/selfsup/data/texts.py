"""Sources of text: documents in a fixed order, their tokens, and the pieces of them that a task learns from."""

from __future__ import annotations

import copy
import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from selfsup.data import tokens
from selfsup.data.folders import cache_folder
from selfsup.data.images import Broken
from selfsup.data.sources import Labels
from selfsup.data.tokens import Tokens
from selfsup.errors import UserError

DAMAGED = 0.02  # share of characters that may be no UTF-8
LENGTH = 128  # tokens a sample
LEAST = 4  # tokens of a sentence that is learned from
CHUNK = 1 << 24  # tokens looked at once


@dataclass(frozen=True)
class TextSpec:
    """What an encoder gets: up to `size` tokens (B, T) int64, [CLS] … [SEP] and then padding.

    `tokenizer` is the digest by which `selfsup.data.tokens` finds it; `bytes_a_token` and `entropy` (nats, of single
    tokens) are those of the data that the spec was made from.
    """

    kind: ClassVar[str] = "text"  # the modality

    size: int
    tokenizer: str
    vocabulary: int
    pad: int
    cls: int
    sep: int
    mask: int
    bytes_a_token: float
    entropy: float

    @property
    def room(self) -> int:
        """Tokens of the text itself in a sample."""
        return self.size - 2


class Rows(NamedTuple):
    """Where each sample lies in an array of tokens."""

    ids: NDArray[Any]
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]


class Texts:
    """Documents: UTF-8 bytes in one array, mapped from a file, so that memory does not grow with the corpus.

    `store` and `starts`: the bytes, and where each document begins and the last one ends; `names`: what a user knows
    the documents by, their numbers where it is None; `rows`: which documents, in which order; `notes`: what was amiss.
    """

    modality = "text"

    def __init__(
        self,
        store: NDArray[np.uint8],
        starts: NDArray[np.int64],
        content: str,
        names: pa.Array | None = None,
        labels: Labels | None = None,
        name: str = "texts",
        notes: tuple[str, ...] = (),
    ) -> None:
        self.store, self.starts, self.content, self.names = store, starts, content, names
        self.labels, self.name, self.notes = labels, name, notes
        self.rows = np.arange(len(starts) - 1)
        self._known: dict[str, Tokens] = {}
        self._lock = threading.Lock()

    @classmethod
    def of(cls, documents: Sequence[str], labels: Labels | None = None, name: str = "texts") -> Texts:
        """Return documents that are in memory."""
        if labels is not None and len(labels.ids) != len(documents):
            raise UserError(f"{name}: {len(labels.ids)} labels for {len(documents)} documents")
        if not any(text.strip() for text in documents):
            raise UserError(f"{name} holds no text")
        encoded = [text.replace("\0", " ").encode(errors="replace") for text in documents]
        starts = np.concatenate([[0], np.cumsum([len(text) for text in encoded])]).astype(np.int64)
        joined = b"".join(encoded)
        content = hashlib.blake2b(joined + starts.tobytes(), digest_size=8).hexdigest()
        return cls(np.frombuffer(joined, np.uint8), starts, content, None, labels, name)

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int) -> str:
        """Return the text of a document, or raise `Broken` for one without a word."""
        row = self.rows[index]
        text = self.store[self.starts[row] : self.starts[row + 1]].tobytes().decode(errors="replace")
        if not text.strip():
            raise Broken("empty")
        return text

    def path(self, index: int) -> str:
        """Return the document's path, or its number."""
        row = int(self.rows[index])
        return str(row) if self.names is None else os.fsdecode(self.names[row].as_py())

    def spec(self, size: int | None = None, tokenizer: str | None = None) -> TextSpec:
        """Return the spec with `size` tokens (by default 128) of a tokenizer.

        `tokenizer`: wordpiece (the default) or bpe, trained on these documents, with :SIZE for another vocabulary
        than 8,000; or a tokenizer.json. Raises `UserError` for another one, and for documents without tokens.
        """
        kind = tokenizer or "wordpiece"
        found = tokens.read_tokenizer(kind) if os.path.isfile(kind) else tokens.train(kind, self._texts, self._corpus())
        digest = tokens.keep(found)
        made = tokens.tokenizer(digest)
        ids, starts, stops = self.lie(digest)
        counts = np.zeros(made.get_vocab_size(), np.int64)
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
            counts += np.bincount(ids[start:stop], minlength=len(counts))
        total = int(counts.sum())
        if not total:
            raise UserError(f"{self.name} holds no word that its tokenizer knows")
        share = counts[counts > 0] / total
        number = {what: tokens.special(digest, what) for what in ("pad", "cls", "sep", "mask")}
        return TextSpec(
            size or LENGTH, digest, len(counts), **number,
            bytes_a_token=round(int((self.starts[self.rows + 1] - self.starts[self.rows]).sum()) / total, 6),
            entropy=round(float(-(share * np.log(share)).sum()), 6),
        )  # fmt: skip

    def lie(self, digest: str) -> Rows:
        """Return where the documents lie in the tokens that a tokenizer makes; tokenised once, then cached."""
        with self._lock:
            if digest not in self._known:
                whole = copy.copy(self)
                whole.rows = np.arange(len(self.starts) - 1)
                self._known[digest] = tokens.tokenise(
                    digest, whole._texts, len(whole), self.content, quiet=len(self.store) < 1 << 24
                )
        ids, starts = self._known[digest]
        return Rows(ids, starts[self.rows], starts[self.rows + 1])

    def take(self, indices: NDArray[np.int64]) -> Texts:
        """Return some of the documents."""
        taken = copy.copy(self)
        taken.rows = self.rows[indices]
        taken.labels = self.labels and self.labels.take(indices)
        return taken

    def fingerprint(self) -> str:
        """Return a hash of every byte, of which documents they are, and of the labels."""
        digest = self._corpus()
        return digest + (f":{self.labels.digest().hex()}" if self.labels else "")

    def _corpus(self) -> str:
        if len(self.rows) == len(self.starts) - 1 and (np.diff(self.rows) == 1).all():
            return self.content
        return hashlib.blake2b(self.content.encode() + self.rows.tobytes(), digest_size=8).hexdigest()

    def _texts(self) -> Iterator[str]:
        for row in self.rows:
            yield self.store[self.starts[row] : self.starts[row + 1]].tobytes().decode(errors="replace")


class Pieces:
    """Stretches of tokens of one document each, in the order of the documents: what the pretext tasks learn from.

    A document becomes equal pieces of at most `spec.room` tokens or, with `sentences`, its sentences (longer ones cut).
    Pieces of fewer than `least` tokens are left out. `lengths` lets the loader put pieces of like length in a batch.
    """

    modality = "text"

    def __init__(self, source: Texts, spec: TextSpec, sentences: bool = False, least: int = 1) -> None:
        self.source, self.name = source, source.name
        self.ids, starts, stops = source.lie(spec.tokenizer)
        ends = tokens.tables(spec.tokenizer)[0]
        places, owners = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for number, (start, stop) in enumerate(zip(starts.tolist(), stops.tolist(), strict=True)):
            cuts = (
                np.append(np.flatnonzero(ends[self.ids[start:stop]]) + 1, stop - start) if sentences else [stop - start]
            )
            bounds = np.unique(np.concatenate([[0], cuts]))
            sizes = np.diff(bounds)
            many = -(-sizes // spec.room)
            inside = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
            begin = np.repeat(bounds[:-1], many) + inside * np.repeat(sizes, many) // np.repeat(many, many)
            places.append(start + begin.astype(np.int64))
            owners.append(np.full(len(begin), number))
        self.starts, self.document = np.concatenate(places), np.concatenate(owners)
        last = np.append(self.document[1:] != self.document[:-1], True) if len(self.document) else np.empty(0, bool)
        following = np.append(self.starts[1:], 0)
        self.stops = np.where(last, stops[self.document], following)
        self.document_stops = stops[self.document]
        kept = self.stops - self.starts >= least
        self._choose(np.flatnonzero(kept))
        if not len(self):
            raise UserError(f"{self.name} has no sentence of {least} tokens to learn from")
        self.labels: Labels | None = None

    def _choose(self, rows: NDArray[np.int64]) -> None:
        for name in ("starts", "stops", "document", "document_stops"):
            setattr(self, name, getattr(self, name)[rows])
        self.lengths = self.stops - self.starts

    def __len__(self) -> int:
        return len(self.starts)

    def read(self, index: int) -> NDArray[np.int64]:
        """Return the tokens."""
        return self.ids[self.starts[index] : self.stops[index]].astype(np.int64)

    def path(self, index: int) -> str:
        """Return the document and the first token."""
        return f"{self.source.path(int(self.document[index]))}:{self.starts[index]}"

    def spec(self, size: int | None = None, tokenizer: str | None = None) -> TextSpec:
        """Return the spec of the documents."""
        return self.source.spec(size, tokenizer)

    def lie(self, digest: str) -> Rows:
        """Return where the pieces lie."""
        return Rows(self.ids, self.starts, self.stops)

    def take(self, indices: NDArray[np.int64]) -> Pieces:
        """Return some of the pieces."""
        taken = copy.copy(self)
        taken._choose(indices)
        return taken

    def fingerprint(self) -> str:
        """Return a hash of the documents and the pieces."""
        return hashlib.blake2b(self.source.fingerprint().encode() + self.starts.tobytes(), digest_size=8).hexdigest()


def stored(documents: Callable[[], Iterator[bytes]], name: str, names: pa.Array | None = None) -> Texts:
    """Return documents from their raw bytes, which are gone through twice: once to know them, once to keep them.

    Bytes that are no UTF-8 and NUL become other characters and are counted. Raises `UserError` for no text at all, and
    where more than 2% of the characters are no UTF-8.
    """
    digest = hashlib.blake2b(digest_size=8)
    lengths = [0]
    bad = nul = empty = 0
    for raw in documents():
        clean, damaged, zeros = _clean(raw)
        bad, nul, empty = bad + damaged, nul + zeros, empty + (not clean.strip())
        lengths.append(len(clean))
        digest.update(clean)
    starts = np.cumsum(np.array(lengths, np.int64))
    if empty == len(lengths) - 1:
        raise UserError(f"{name} holds no text")
    if bad > DAMAGED * int(starts[-1]):
        raise UserError(
            f"{bad:,} of {int(starts[-1]):,} characters of {name} are no UTF-8; convert it (iconv -t UTF-8)"
        )
    digest.update(starts.tobytes())
    content = digest.hexdigest()
    path = cache_folder() / "text" / f"{content}.txt"
    if not path.exists() or path.stat().st_size != starts[-1]:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        with open(aside, "wb") as file:
            for raw in documents():
                file.write(_clean(raw)[0])
        os.replace(aside, path)
    notes = [
        (bad, "bytes are no UTF-8 and were replaced"),
        (nul, "NUL bytes became spaces"),
        (empty, "documents are empty"),
    ]
    told = tuple(f"{name}: {count:,} {what}" for count, what in notes if count)
    return Texts(np.memmap(path, np.uint8, "r"), starts, content, names, None, name, told)


def _clean(raw: bytes) -> tuple[bytes, int, int]:
    zeros = raw.count(b"\0")
    raw = raw.replace(b"\0", b" ") if zeros else raw
    try:
        raw.decode()
        return raw, 0, zeros
    except UnicodeDecodeError:
        text = raw.decode(errors="replace")
        return text.encode(), text.count("\N{REPLACEMENT CHARACTER}"), zeros
