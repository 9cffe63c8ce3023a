"""Sources of text: documents in a fixed order, their tokens, and the pieces of them that a task learns from."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from selfsup.base.cache import cache_folder, new_in_cache
from selfsup.base.paths import expanded
from selfsup.data.encoding import encoding_of, to_utf8
from selfsup.data.spans import Spans
from selfsup.data.text import tokens
from selfsup.errors import UserError
from selfsup.source import Broken, Labels, Source, source_repr
from selfsup.spec import Spec, TextSpec
from selfsup.spec import tokenizer as tokenizer_store

DAMAGED = 0.02  # largest fraction of characters that are not UTF-8
LENGTH = 128  # tokens a sample
UNKNOWN = 0.01  # fraction of tokens above which unknown words are mentioned


class Texts:
    """Documents: UTF-8 bytes in one array, mapped from a file, so that memory does not grow with the corpus.

    `store` and `starts`: the bytes, and where each document begins and the last one ends; `names`: the paths of the
    documents, None if they only have numbers; `rows`: which documents, in which order; `notes`: warnings.
    """

    kind = "text"
    __repr__ = source_repr

    def __init__(
        self,
        store: NDArray[np.uint8],
        starts: NDArray[np.int64],
        digest: str,
        names: pa.Array | None = None,
        labels: Labels | None = None,
        name: str = "texts",
        notes: tuple[str, ...] = (),
    ) -> None:
        self.store, self.starts, self.digest, self.names = store, starts, digest, names
        self.labels, self.name, self.notes = labels, name, notes
        self.rows = np.arange(len(starts) - 1)
        self._known: dict[str, tokens.Tokens] = {}
        self._conformed: Tokenized | None = None
        self._lock = threading.Lock()

    @classmethod
    def of(cls, documents: Sequence[str], labels: Labels | None = None, name: str = "texts") -> Texts:
        """Return documents that are in memory."""
        if labels is not None and len(labels.ids) != len(documents):
            raise UserError(f"{name}: {len(labels.ids)} labels for {len(documents)} documents")
        encoded = [text.replace("\0", " ").encode(errors="replace") for text in documents]
        if not any(text.strip() for text in encoded):
            raise UserError(f"{name} holds no text")
        starts = np.concatenate([[0], np.cumsum([len(text) for text in encoded])]).astype(np.int64)
        joined = b"".join(encoded)
        content = hashlib.blake2b(joined + starts.tobytes(), digest_size=8).hexdigest()
        return cls(np.frombuffer(joined, np.uint8), starts, content, None, labels, name)

    def __len__(self) -> int:
        return len(self.rows)

    def extent(self, index: int) -> int:
        """Return how many bytes of UTF-8 a document has; `conform` counts tokens."""
        row = self.rows[index]
        return int(self.starts[row + 1] - self.starts[row])

    def read(self, index: int, span: slice | None = None) -> str:
        """Return the text of a document, or of a span of its bytes, or raise `Broken` for an empty one."""
        row = self.rows[index]
        stored = self.store[self.starts[row] : self.starts[row + 1]]
        text = stored[span or slice(None)].tobytes().decode(errors="replace")
        if not text.strip():
            raise Broken("empty")
        return text

    def path(self, index: int) -> str:
        """Return the document's path, or its number."""
        row = int(self.rows[index])
        return str(row) if self.names is None else os.fsdecode(self.names[row].as_py())

    def spec(self, size: int | None = None, tokenizer: str | None = None) -> TextSpec:
        """Return what an encoder gets of these documents.

        Args:
            size: Tokens of a sample, [CLS] and [SEP] included; 128 by default, in [8, 4096].
            tokenizer: wordpiece (the default, lower case), wordpiece-cased or bpe, trained on these documents, with
                :SIZE for another vocabulary than 8,000; or a tokenizer.json.

        Raises:
            UserError: For another tokenizer, and for documents without tokens.
        """
        wanted = expanded(tokenizer or "wordpiece", "--tokenizer")
        found = (
            tokens.read_tokenizer(wanted)
            if os.path.isfile(wanted)
            else tokens.train(wanted, self._texts, self._corpus())
        )
        digest = tokenizer_store.keep(found)
        made = self.tokens_of(digest)
        counts = np.zeros(tokenizer_store.tokenizer(digest).get_vocab_size(), np.int64)
        for start, stop in zip(made.starts[self.rows].tolist(), made.starts[self.rows + 1].tolist(), strict=True):
            counts += np.bincount(made.ids[start:stop], minlength=len(counts))
        total = int(counts.sum())
        if not total:
            raise UserError(f"{self.name} holds no word that its tokenizer knows")
        frequency = counts[counts > 0] / total
        number = {what: tokenizer_store.special(digest, what) for what in ("pad", "cls", "sep", "mask")}
        return TextSpec(
            size or LENGTH, digest, len(counts), **number,
            bytes_per_token=round(int((self.starts[self.rows + 1] - self.starts[self.rows]).sum()) / total, 6),
            entropy=round(float(-(frequency * np.log(frequency)).sum()), 6),
        )  # fmt: skip

    def tokens_of(self, digest: str) -> tokens.Tokens:
        """Return the tokens of all documents that a tokenizer makes; tokenized once, then cached."""
        with self._lock:
            if digest not in self._known:
                whole = copy.copy(self)
                whole.rows = np.arange(len(self.starts) - 1)
                self._known[digest] = tokens.tokenize(
                    digest, whole._texts, len(whole), self.digest, quiet=len(self.store) < 1 << 24
                )
        return self._known[digest]

    def conform(self, spec: Spec) -> Tokenized:
        """Return the documents as the tokens of a spec. Raises `UserError` for a spec of another kind."""
        if not isinstance(spec, TextSpec):
            raise UserError(f"{self.name} holds no {spec.samples}, which this encoder takes")
        known = self._conformed
        if known is None or known.documents is not self or known.made_for != spec:  # a copy may have other labels
            known = self._conformed = Tokenized(self, spec)
        return known

    def take(self, indices: NDArray[np.int64]) -> Texts:
        """Return some of the documents."""
        taken = copy.copy(self)
        taken.rows, taken._conformed = self.rows[indices], None
        taken.labels = self.labels and self.labels.take(indices)
        return taken

    def fingerprint(self) -> str:
        """Return a hash of every byte, of which documents they are, and of the labels."""
        digest = self._corpus()
        return digest + (f":{self.labels.digest().hex()}" if self.labels else "")

    def _corpus(self) -> str:
        if len(self.rows) == len(self.starts) - 1 and (np.diff(self.rows) == 1).all():
            return self.digest
        return hashlib.blake2b(self.digest.encode() + self.rows.tobytes(), digest_size=8).hexdigest()

    def _texts(self) -> Iterator[str]:
        for row in self.rows:
            yield self.store[self.starts[row] : self.starts[row + 1]].tobytes().decode(errors="replace")


class Tokenized:
    """Documents as the tokens of a spec: a sample is (extent,) int64."""

    kind = "text"
    __repr__ = source_repr

    def __init__(self, documents: Texts, spec: TextSpec) -> None:
        made = documents.tokens_of(spec.tokenizer)
        self.documents, self.name, self.made_for = documents, documents.name, spec
        self.ids, self.starts, self.stops = made.ids, made.starts[documents.rows], made.starts[documents.rows + 1]
        unknown = np.count_nonzero(made.ids == tokenizer_store.special(spec.tokenizer, "unk")) / max(1, len(made.ids))
        told = f"{self.name}: {unknown:.1%} of the tokens are words that the tokenizer does not know"
        self.notes = (*documents.notes, *([told] if unknown > UNKNOWN else []))

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def labels(self) -> Labels | None:
        """Those of the documents."""
        return self.documents.labels

    @labels.setter
    def labels(self, labels: Labels | None) -> None:
        self.documents = copy.copy(self.documents)
        self.documents.labels = labels

    def extent(self, index: int) -> int:
        """Return how many tokens a document has."""
        return int(self.stops[index] - self.starts[index])

    def read(self, index: int, span: slice | None = None) -> NDArray[np.int64]:
        """Return the tokens, or a span of them; raise `Broken` for a document without any."""
        if not self.extent(index):
            raise Broken("empty")
        first, last, _ = (span or slice(None)).indices(self.extent(index))
        return self.ids[self.starts[index] + first : self.starts[index] + last].astype(np.int64)

    def path(self, index: int) -> str:
        """Return the document's path, or its number."""
        return self.documents.path(index)

    def spec(self) -> TextSpec:
        """Return the spec whose tokens these are."""
        return self.made_for

    def conform(self, spec: Spec) -> Tokenized:
        """Return the documents in the tokens of another spec."""
        return self if spec == self.made_for else self.documents.conform(spec)

    def take(self, indices: NDArray[np.int64]) -> Tokenized:
        """Return some of the documents."""
        return Tokenized(self.documents.take(indices), self.made_for)

    def fingerprint(self) -> str:
        """Return a hash of the documents and the tokenizer."""
        return f"{self.documents.fingerprint()}:{self.made_for.tokenizer}"


def pieces(documents: Source, spec: TextSpec, sentences: bool = False, min_length: int = 1) -> Spans:
    """Return spans of tokens of one document each, in the order of the documents, from which pretext tasks learn.

    A document becomes equal pieces of at most `spec.room` tokens or, with `sentences`, its sentences (longer ones cut).
    Pieces of fewer than `min_length` tokens are left out. Raises `UserError` where none is left.
    """
    source = documents.conform(spec)
    ends = tokenizer_store.tables(spec.tokenizer)[0]
    owners, starts, stops = ([np.empty(0, np.int64)] for _ in range(3))
    for number in range(len(source)):
        length = source.extent(number)
        cuts = np.append(np.flatnonzero(ends[source.read(number)]) + 1, length) if sentences and length else [length]
        bounds = np.unique(np.concatenate([[0], cuts])).astype(np.int64)
        sizes = np.diff(bounds)
        many = -(-sizes // spec.room)
        inside = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
        begin = np.repeat(bounds[:-1], many) + inside * np.repeat(sizes, many) // np.repeat(many, many)
        starts.append(begin)
        stops.append(np.append(begin[1:], length)[: len(begin)])
        owners.append(np.full(len(begin), number))
    whole = Spans(source, *(np.concatenate(part) for part in (owners, starts, stops)))
    found = whole.take(np.flatnonzero(whole.lengths >= min_length))
    if not len(found):
        raise UserError(f"{source.name} has no sentence of {min_length} tokens to learn from")
    return found


def token_counts(found: Spans, vocabulary: int) -> NDArray[np.int64]:
    """Return how often each token is in the readable documents of `pieces`, (vocabulary,)."""
    counts = np.zeros(vocabulary, np.int64)
    for number in np.unique(found.owners).tolist():
        with contextlib.suppress(Broken):  # the loader counts these
            counts += np.bincount(found.source.read(number), minlength=vocabulary)
    return counts


def open_query(query: object) -> Texts:
    """Return the sentence itself, or the text in the file of that name, as a source of one document."""
    if not isinstance(query, str):
        raise UserError(f"the query must be a sentence or the path of a .txt file, not {type(query).__name__}")
    text = expanded(query) if query.startswith("~/") else query
    if os.path.isfile(text):
        with open(text, "rb") as file:
            raw = file.read()
        text = to_utf8(raw, encoding_of([raw])).decode(errors="replace")
    if not text.replace("\0", " ").strip():
        raise UserError("the query is empty: give a sentence or a .txt file")
    return Texts.of([text], name="query")


def stored(documents: Callable[[], Iterator[bytes]], name: str, names: pa.Array | None = None) -> Texts:
    """Return documents from their raw bytes, which are read twice: once for their digest, once to store them.

    Bytes that are not UTF-8 and NUL are replaced and counted. Raises `UserError` if there is no text at all, or more
    than 2% of the characters are damaged.
    """
    digest = hashlib.blake2b(digest_size=8)
    lengths = [0]
    bad = nul = empty = 0
    worst, most = -1, 0
    for number, raw in enumerate(documents()):
        clean, damaged, zeros = _clean(raw)
        worst, most = (number, damaged) if damaged > most else (worst, most)
        bad, nul, empty = bad + damaged, nul + zeros, empty + (not clean.strip())
        lengths.append(len(clean))
        digest.update(clean)
    starts = np.cumsum(np.array(lengths, np.int64))
    if empty == len(lengths) - 1:
        raise UserError(f"{name} holds no text")
    if bad > DAMAGED * int(starts[-1]):
        raise UserError(
            f"{bad:,} of {int(starts[-1]):,} characters of {name} are not UTF-8{_where(names, worst, most, bad)}; "
            "convert it (iconv -t UTF-8)"
        )
    digest.update(starts.tobytes())
    content = digest.hexdigest()
    path = cache_folder() / "text" / f"{content}.txt"
    if not os.path.exists(path) or path.stat().st_size != starts[-1]:
        with new_in_cache(path) as aside, open(aside, "wb") as file:
            for raw in documents():
                file.write(_clean(raw)[0])
    notes = [
        (bad, f"bytes are not UTF-8 and were replaced{_where(names, worst, most, bad)}"),
        (nul, "NUL bytes became spaces"),
        (empty, "documents are empty"),
    ]
    told = tuple(f"{name}: {count:,} {what}" for count, what in notes if count)
    return Texts(np.memmap(path, np.uint8, "r"), starts, content, names, None, name, told)


def _where(names: pa.Array | None, worst: int, most: int, bad: int) -> str:
    """Return which file has the most damage, where documents are files."""
    return "" if names is None or not bad else f" ({most:,} in {os.fsdecode(names[worst].as_py())!r})"


def _clean(raw: bytes) -> tuple[bytes, int, int]:
    zeros = raw.count(b"\0")
    raw = raw.replace(b"\0", b" ") if zeros else raw
    try:
        raw.decode()
        return raw, 0, zeros
    except UnicodeDecodeError:
        text = raw.decode(errors="replace")
        return text.encode(), text.count("\N{REPLACEMENT CHARACTER}"), zeros
