"""Speech that Debian's program `flite` makes: sentences of our own, four voices, and where each phone lies."""

from __future__ import annotations

import csv
import hashlib
import random
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa

from selfsup.base.cache import new_in_cache
from selfsup.base.threads import side_by_side
from selfsup.data.annotations import read_annotations
from selfsup.data.audio.sources import Sounds
from selfsup.errors import UserError, need
from selfsup.source import Labels

T = TypeVar("T")

VOICES = ("kal16", "awb", "rms", "slt")
SENTENCES = 400
FOLDER = "flite-1"  # in the cache; another number for other sentences
PHONES = "phones.csv"  # in that folder: path,start,end,label, in seconds

WHO = (
    "the boy", "a young woman", "my father", "the old judge", "your neighbour", "a thin girl", "the teacher",
    "our cousin", "the doctor", "a tall sailor", "his daughter", "the weaver", "some farmer", "the shepherd",
    "every child", "the baker", "her uncle", "a quiet stranger", "the youth", "the guard",
)  # fmt: skip
DOES = (
    "found", "watched", "pushed", "carried", "forgot", "measured", "chose", "enjoyed", "washed", "pulled", "shook",
    "bought", "buried", "threw", "painted", "noticed", "followed", "gathered", "avoided", "heard", "judged", "took",
)  # fmt: skip
HOW = (
    "large", "yellow", "rough", "beige", "broken", "smooth", "heavy", "cheap", "shiny", "moist", "narrow", "good",
    "wooden", "loud", "strange", "warm", "empty", "thick", "unusual", "tiny", "royal", "huge", "north", "pure",
)  # fmt: skip
WHAT = (
    "book", "cloud", "treasure", "coin", "mouth", "bridge", "kettle", "feather", "watch", "shoe", "garage", "oyster",
    "thing", "log", "hood", "jacket", "cup", "ring", "path", "noise", "vase", "bush", "cow", "television", "engine",
    "apple", "wolf", "church", "flag", "paper", "drum", "toy", "sheep", "zebra", "voyage",
)  # fmt: skip
WHERE = (
    "near the river", "under the house", "behind the hedge", "on a high hill", "beyond the town", "by the south gate",
    "along the road", "at the harbour", "above the valley", "inside the hut", "through the woods", "across the yard",
)  # fmt: skip
WHEN = (
    "today", "last Thursday", "at noon", "in the early spring", "before the storm", "each morning", "after an hour",
    "once again", "without a pause", "for pleasure", "with both hands", "five years ago",
)  # fmt: skip


def flite(name: str, cache: Path) -> Sounds:
    """Return the recordings of `flite`, `flite:train` or `flite:test`, labelled with voices and, inside, with phones.

    Every voice says the same 400 sentences; the test part is a fifth of the sentences, chosen by a hash of their text.
    They are made once, by the program on this machine, and kept in the cache as FLAC with the times of all phones.

    Raises `UserError` where flite is not installed.
    """
    folder = cache / FOLDER
    if not folder.is_dir():
        with new_in_cache(folder) as new:
            _make(new)
    texts = sentences()
    paths = [_path(voice, number).encode() for voice in VOICES for number in range(len(texts))]
    found = Sounds(str(folder), pa.array(paths, pa.large_binary()), Labels.of(np.repeat(VOICES, len(texts))), name)
    found.frame_labels = read_annotations(folder / PHONES, found)
    tested = np.tile([_is_tested(text) for text in texts], len(VOICES))
    return found if name == "flite" else found.take(np.flatnonzero(tested == name.endswith(":test")))


def sentences() -> list[str]:
    """Return sentences of a small grammar, no two alike: the same ones everywhere."""
    rng, found = random.Random(0), dict[str, None]()

    def pick(some: Sequence[T]) -> T:
        return some[int(rng.random() * len(some))]

    while len(found) < SENTENCES:
        how = pick(HOW)
        text = f"{pick(WHO)} {pick(DOES)} a{'n' * (how[0] in 'aeiou')} {how} {pick(WHAT)} {pick(pick((WHERE, WHEN)))}."
        found[text[0].upper() + text[1:]] = None
    return list(found)


def _is_tested(text: str) -> bool:
    return hashlib.blake2b(text.encode(), digest_size=1).digest()[0] % 5 == 0


def _path(voice: str, number: int) -> str:
    return f"{voice}/{number:03d}.flac"


def _make(folder: Path) -> None:
    """Write all recordings and the times of their phones."""
    program = shutil.which("flite")
    if program is None:
        raise UserError(
            "flite is speech that the program flite makes, which is not on this machine: apt-get install flite"
        )
    need("soundfile", "audio")
    known = subprocess.run([program, "-lv"], capture_output=True, text=True, check=False).stdout.split()
    if missing := [voice for voice in VOICES if voice not in known]:
        raise UserError(f"the program flite on this machine lacks the voices {', '.join(missing)}: install Debian's")
    for voice in VOICES:
        (folder / voice).mkdir(parents=True)
    todo = [(voice, number, text) for voice in VOICES for number, text in enumerate(sentences())]
    with open(folder / PHONES, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "start", "end", "label"))
        for phones in side_by_side("making the speech of flite, once", lambda one: _say(program, folder, *one), todo):
            writer.writerows(phones)


def _say(program: str, folder: Path, voice: str, number: int, text: str) -> list[tuple[str, str, str, str]]:
    """Write one recording and return its phones: path, start and end in seconds, name."""
    soundfile = need("soundfile", "audio")
    path = _path(voice, number)
    with tempfile.TemporaryDirectory() as aside:
        command = [program, "-voice", voice, "-psdur", "-t", text, "-o", f"{aside}/x.wav"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        ends = re.findall(r"([a-z]+):([0-9.]+)", done.stdout)
        if done.returncode or not ends:
            raise UserError(f"flite cannot say {text!r}: {(done.stderr.strip() or 'no phones').splitlines()[0]}")
        samples, rate = soundfile.read(f"{aside}/x.wav", dtype="int16")
    soundfile.write(folder / path, samples, rate, format="FLAC")
    found, start, length = [], 0.0, len(samples) / rate
    for phone, told in ends:
        end = min(float(told), length)  # kal16 cuts the last pause
        if end > start:
            found.append((path, f"{start:.4f}", f"{end:.4f}", phone))
        start = end
    return found
