"""Tokenizers by the digest of their content: kept in memory and in the cache folder, looked up by specs and views."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from selfsup.base.cache import cache_folder, new_in_cache
from selfsup.errors import UserError, need

SPECIAL = {  # names of each in common tokenizers; the first one is ours
    "pad": ("[PAD]", "<pad>"),
    "unk": ("[UNK]", "<unk>"),
    "cls": ("[CLS]", "<s>"),
    "sep": ("[SEP]", "</s>"),
    "mask": ("[MASK]", "<mask>"),
}

ENDS = set(".!?\n。！？।॥؟۔")  # of sentences
CLOSING = "\"')”’」』）"  # may follow it

_read: dict[str, str] = {}  # tokenizers of runs that were opened, by digest


def keep(json: str) -> str:
    """Remember a tokenizer, in this process and in the cache, and return its digest, by which `tokenizer` finds it."""
    digest = hashlib.blake2b(json.encode(), digest_size=8).hexdigest()
    _read[digest] = json
    path = cache_folder() / "text" / f"{digest}.json"
    if not os.path.exists(path):
        with new_in_cache(path) as aside:
            aside.write_bytes(json.encode())
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
    """Return for every token whether it ends a sentence, and whether it continues the word before it."""
    made = tokenizer(digest)
    words = [made.id_to_token(number) or "" for number in range(made.get_vocab_size())]
    byte_level = any(word.startswith("Ġ") for word in words)
    shown = made.decode_batch([[number] for number in range(len(words))], skip_special_tokens=False)
    read = shown if byte_level else [word.removeprefix("##") for word in words]
    ends = np.array([text.rstrip(CLOSING)[-1:] in ENDS for text in read])
    on = [word[:1].isalnum() and byte_level if not word.startswith("##") else True for word in words]
    return ends, np.array(on)


def seen(digest: str, ids: Tensor) -> str:
    """Return ids (T,) as readable text with all special tokens except padding; pieces of a word are joined."""
    made, pad = tokenizer(digest), special(digest, "pad")
    return " ".join(made.id_to_token(number) for number in ids.tolist() if number != pad).replace(" ##", "")
