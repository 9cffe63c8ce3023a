"""Tokenizers and the tokens of a corpus: trained or read once, cached by content."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfsup.base.cache import cache_folder, new_in_cache
from selfsup.base.progress import counting
from selfsup.errors import UserError, need, unknown
from selfsup.spec.tokenizer import SPECIAL, tokenizer

TRAINED = ("wordpiece", "wordpiece-cased", "bpe")
RECIPE = 3  # of trained tokenizers, whose older ones may still be cached
LONGEST = 100  # characters of a word, beyond which WordPiece knows it no more: longer ones are cut
UNSEEN = r"[\x00-\x08\x0e-\x1f\u00ad\u200b\ufeff\ufffd]"  # control characters, soft hyphens, marks, damage: left out
VOCABULARY = 8000
# words of bpe: those of GPT-2, but with the vowel signs of a word inside of it, not as words of their own
WORDS = r"'(?:s|t|re|ve|m|ll|d)| ?[\p{L}\p{M}]+| ?\p{N}+| ?[^\s\p{L}\p{M}\p{N}]+|\s+(?!\S)|\s+"
PART = 1 << 16  # characters that are tokenized at once: a longer document is cut at a space
GROUP = 1 << 22  # characters of a group that is tokenized in parallel


class Tokens(NamedTuple):
    """The tokens of all documents in one array, mapped from a file; document d is ids[starts[d]:starts[d + 1]]."""

    ids: NDArray[Any]
    starts: NDArray[np.int64]


def train(wanted: str, texts: Callable[[], Iterator[str]], corpus: str) -> str:
    """Return a tokenizer as JSON. `wanted`: a name in `TRAINED`, with :SIZE for another size than 8,000.

    wordpiece composes characters (NFC) and makes them lower case, wordpiece-cased only composes them; bpe takes bytes
    as they are. Accents, vowel signs and sound marks stay.

    The same corpus (by its fingerprint) gives the same tokenizer again, from the cache.
    """
    name, _, size = wanted.partition(":")
    if name not in TRAINED:
        raise unknown("tokenizer", wanted, [*TRAINED, *(f"{one}:SIZE" for one in TRAINED)])
    if size and not (size.isdecimal() and 300 <= int(size) <= 1_000_000):
        raise UserError(f"a tokenizer has 300 to 1,000,000 tokens, not {size}: give another --tokenizer {name}:SIZE")
    path = cache_folder() / "text" / f"{corpus}-{name}-{size or VOCABULARY}-{RECIPE}.json"
    if os.path.exists(path):
        return path.read_text(encoding="utf-8")
    hf: Any = need("tokenizers", "text")
    for part in ("models", "normalizers", "pre_tokenizers", "decoders", "trainers"):
        need(f"tokenizers.{part}", "text")
    special = [names[0] for names in SPECIAL.values()]
    options = {"vocab_size": int(size or VOCABULARY), "special_tokens": special, "show_progress": False}
    if name != "bpe":
        made = hf.Tokenizer(hf.models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=LONGEST))
        lower = hf.normalizers.BertNormalizer(clean_text=False, strip_accents=False, lowercase=name == "wordpiece")
        made.normalizer = hf.normalizers.Sequence(
            [hf.normalizers.NFC(), hf.normalizers.Replace(hf.Regex(UNSEEN), ""), lower]
        )
        made.pre_tokenizer = hf.pre_tokenizers.Sequence(
            [hf.pre_tokenizers.BertPreTokenizer(), hf.pre_tokenizers.FixedLength(LONGEST)]
        )
        made.decoder = hf.decoders.WordPiece()
        trainer = hf.trainers.WordPieceTrainer(**options)
    else:
        made = hf.Tokenizer(hf.models.BPE())
        made.pre_tokenizer = hf.pre_tokenizers.Sequence(
            [
                hf.pre_tokenizers.Split(hf.Regex(WORDS), "isolated"),
                hf.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        made.decoder = hf.decoders.ByteLevel()
        trainer = hf.trainers.BpeTrainer(initial_alphabet=hf.pre_tokenizers.ByteLevel.alphabet(), **options)
    made.train_from_iterator((part for text in texts() for part in parts(text)), trainer)
    found: str = made.to_str()
    with new_in_cache(path) as aside:
        aside.write_bytes(found.encode())
    return found


def read_tokenizer(path: str | Path) -> str:
    """Return a tokenizer file's JSON, with the special tokens that it lacks."""
    hf: Any = need("tokenizers", "text")
    try:
        made = hf.Tokenizer.from_str(Path(path).read_text(encoding="utf-8"))
    except Exception as error:  # the library raises plain Exception
        raise UserError(f"{path} is not a tokenizer file (tokenizer.json): {str(error).splitlines()[0]}") from None
    made.no_padding()
    made.no_truncation()
    known = made.get_vocab()
    made.add_special_tokens([names[0] for names in SPECIAL.values() if not known.keys() & set(names)])
    return made.to_str()


def parts(text: str) -> Iterator[str]:
    """Yield a text in parts of about 65,536 characters, cut at spaces, where all tokenizers split words."""
    begin = 0
    while len(text) - begin > PART:
        cut = text.rfind(" ", begin + 1, begin + PART)
        cut = cut if cut > 0 else begin + PART
        yield text[begin:cut]
        begin = cut
    yield text[begin:]


def tokenize(digest: str, texts: Callable[[], Iterator[str]], count: int, corpus: str, quiet: bool = True) -> Tokens:
    """Return the tokens of `count` documents, from the cache if the corpus (by fingerprint) was tokenized before."""
    path = cache_folder() / "text" / f"{corpus}-{digest}.tokens"
    made = tokenizer(digest)
    dtype = np.dtype(np.uint16 if made.get_vocab_size() <= 1 << 16 else np.uint32)
    head = 8 * (count + 1)
    if not os.path.exists(path):
        with (
            new_in_cache(path) as aside,
            open(aside, "wb") as file,
            counting("tokenizing", count, quiet) as advance,
        ):
            file.seek(head)
            lengths = np.zeros(count + 1, np.int64)
            for document, ids in _encoded(made, texts(), advance):
                lengths[document + 1] += len(ids)
                file.write(np.array(ids, dtype).data)
            file.seek(0)
            file.write(np.cumsum(lengths).data)
    starts = np.fromfile(path, np.int64, count + 1)
    if len(starts) != count + 1 or path.stat().st_size != head + int(starts[-1]) * dtype.itemsize:
        path.unlink()
        return tokenize(digest, texts, count, corpus, quiet)
    mapped: NDArray[Any] = np.memmap(path, dtype, "r", head) if starts[-1] else np.empty(0, dtype)
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
