"""Tokenizers and the tokens of a corpus: trained or read once, kept in the cache folder, found again by content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from selfsup.data.folders import cache_folder
from selfsup.errors import UserError, need, unknown
from selfsup.progress import counting

SPECIAL = {  # what each is called in tokenizers of others; the first name is ours
    "pad": ("[PAD]", "<pad>"),
    "unk": ("[UNK]", "<unk>"),
    "cls": ("[CLS]", "<s>"),
    "sep": ("[SEP]", "</s>"),
    "mask": ("[MASK]", "<mask>"),
}
KINDS = ("wordpiece", "bpe")
VOCABULARY = 8000
PART = 1 << 16  # characters that are tokenised at once: a longer document is cut at a space
GROUP = 1 << 22  # characters of a group that is tokenised in parallel

_read: dict[str, str] = {}  # tokenizers of runs that were opened, by digest


class Tokens(NamedTuple):
    """The tokens of all documents in one array, mapped from a file; document d is ids[starts[d]:starts[d + 1]]."""

    ids: NDArray[Any]
    starts: NDArray[np.int64]


def train(kind: str, texts: Callable[[], Iterator[str]], corpus: str) -> str:
    """Return a tokenizer as JSON. `kind`: wordpiece or bpe (byte-level), as KIND:SIZE of another size than 8,000.

    The same corpus (by its fingerprint) gives the same tokenizer again, from the cache.
    """
    name, _, size = kind.partition(":")
    if name not in KINDS:
        raise unknown("tokenizer", kind, [*KINDS, *(f"{k}:SIZE" for k in KINDS)])
    if size and not (size.isdecimal() and 300 <= int(size) <= 1_000_000):
        raise UserError(f"a tokenizer has 300 to 1,000,000 tokens, not {size}: give another --tokenizer {name}:SIZE")
    path = cache_folder() / "text" / f"{corpus}-{name}-{size or VOCABULARY}.json"
    if path.exists():
        return path.read_text(encoding="utf-8")
    hf: Any = need("tokenizers", "text")
    for part in ("models", "normalizers", "pre_tokenizers", "decoders", "trainers"):
        need(f"tokenizers.{part}", "text")
    special = [names[0] for names in SPECIAL.values()]
    options = {"vocab_size": int(size or VOCABULARY), "special_tokens": special, "show_progress": False}
    if name == "wordpiece":
        tokenizer = hf.Tokenizer(hf.models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = hf.normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = hf.pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = hf.decoders.WordPiece()
        trainer = hf.trainers.WordPieceTrainer(**options)
    else:
        tokenizer = hf.Tokenizer(hf.models.BPE())
        tokenizer.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = hf.decoders.ByteLevel()
        trainer = hf.trainers.BpeTrainer(initial_alphabet=hf.pre_tokenizers.ByteLevel.alphabet(), **options)
    tokenizer.train_from_iterator((part for text in texts() for part in parts(text)), trainer)
    found: str = tokenizer.to_str()
    _write(path, found.encode())
    return found


def read_tokenizer(path: str | Path) -> str:
    """Return a tokenizer file's JSON, with the special tokens that it lacks."""
    hf: Any = need("tokenizers", "text")
    try:
        tokenizer = hf.Tokenizer.from_str(Path(path).read_text(encoding="utf-8"))
    except Exception as error:  # the library raises plain Exception
        raise UserError(f"{path} is no tokenizer file (tokenizer.json): {str(error).splitlines()[0]}") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    known = tokenizer.get_vocab()
    tokenizer.add_special_tokens([names[0] for names in SPECIAL.values() if not known.keys() & set(names)])
    found: str = tokenizer.to_str()
    return found


def keep(json: str) -> str:
    """Remember a tokenizer, in this process and in the cache, and return its digest, by which `tokenizer` finds it."""
    digest = hashlib.blake2b(json.encode(), digest_size=8).hexdigest()
    _read[digest] = json
    path = cache_folder() / "text" / f"{digest}.json"
    if not path.exists():
        _write(path, json.encode())
    return digest


def tokenizer_json(digest: str) -> str:
    """Return the JSON of a tokenizer that was kept."""
    if digest not in _read:
        try:
            _read[digest] = (cache_folder() / "text" / f"{digest}.json").read_text(encoding="utf-8")
        except OSError:
            raise UserError(f"the tokenizer {digest} is no longer in {cache_folder()}; pretrain again") from None
    return _read[digest]


@lru_cache(maxsize=8)
def tokenizer(digest: str) -> Any:
    """Return the tokenizer of a digest."""
    hf: Any = need("tokenizers", "text")
    return hf.Tokenizer.from_str(tokenizer_json(digest))


def special(digest: str, what: str) -> int:
    """Return the number of a special token: pad, unk, cls, sep or mask."""
    known: dict[str, int] = tokenizer(digest).get_vocab()
    return next(known[name] for name in SPECIAL[what] if name in known)


@lru_cache(maxsize=8)
def tables(digest: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return for every token whether a sentence ends with it, and whether it goes on with the word before it."""
    made = tokenizer(digest)
    words = [made.id_to_token(number) or "" for number in range(made.get_vocab_size())]
    ends = np.array([word.removeprefix("##").rstrip("\"')")[-1:] in {".", "!", "?", "Ċ"} for word in words])
    byte_level = any(word.startswith("Ġ") for word in words)
    on = [word[:1].isalnum() and byte_level if not word.startswith("##") else True for word in words]
    return ends, np.array(on)


def seen(digest: str, ids: Tensor) -> str:
    """Return ids (T,) as text for the eye, in which special tokens but padding are seen; pieces of a word joined."""
    made, pad = tokenizer(digest), special(digest, "pad")
    return " ".join(made.id_to_token(number) for number in ids.tolist() if number != pad).replace(" ##", "")


def parts(text: str) -> Iterator[str]:
    """Yield a text in parts of about 65,536 characters, cut at spaces, where all tokenizers part words."""
    begin = 0
    while len(text) - begin > PART:
        cut = text.rfind(" ", begin + 1, begin + PART)
        cut = cut if cut > 0 else begin + PART
        yield text[begin:cut]
        begin = cut
    yield text[begin:]


def tokenise(digest: str, texts: Callable[[], Iterator[str]], count: int, corpus: str, quiet: bool = True) -> Tokens:
    """Return the tokens of `count` documents, from the cache where the same corpus (by fingerprint) has been here."""
    path = cache_folder() / "text" / f"{corpus}-{digest}.tokens"
    made = tokenizer(digest)
    kind = np.dtype(np.uint16 if made.get_vocab_size() <= 1 << 16 else np.uint32)
    head = 8 * (count + 1)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with open(aside, "wb") as file, counting("tokenising", count, quiet) as advance:
                file.seek(head)
                lengths = np.zeros(count + 1, np.int64)
                for document, ids in _encoded(made, texts(), advance):
                    lengths[document + 1] += len(ids)
                    file.write(np.array(ids, kind).data)
                file.seek(0)
                file.write(np.cumsum(lengths).data)
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)
    starts = np.fromfile(path, np.int64, count + 1)
    if len(starts) != count + 1 or path.stat().st_size != head + int(starts[-1]) * kind.itemsize:
        path.unlink()
        return tokenise(digest, texts, count, corpus, quiet)
    mapped: NDArray[Any] = np.memmap(path, kind, "r", head) if starts[-1] else np.empty(0, kind)
    return Tokens(mapped, starts)


def _encoded(made: Any, texts: Iterator[str], advance: Callable[[int], None]) -> Iterator[tuple[int, list[int]]]:
    group: list[str] = []
    owners: list[int] = []
    size = 0
    for document, text in enumerate(texts):
        for part in parts(text):
            group.append(part)
            owners.append(document)
            size += len(part)
            if size > GROUP:
                for owner, encoding in zip(
                    owners, made.encode_batch_fast(group, add_special_tokens=False), strict=True
                ):
                    yield owner, encoding.ids
                group, owners, size = [], [], 0
        advance(1)
    for owner, encoding in zip(owners, made.encode_batch_fast(group, add_special_tokens=False), strict=True):
        yield owner, encoding.ids


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_bytes(data)
    os.replace(aside, path)
