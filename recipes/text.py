"""Texts: BERT-Tiny, and SimCSE on top of it, with few labels of BBC News; next-word prediction against counting.

`python recipes/text.py DATA` runs all; DATA is the folder that `benchmarks/text_data.py` makes.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import selfsup
from selfsup.evaluation.result import Evaluation


def bert(data: Path, out: Path = Path("runs/text")) -> selfsup.Run:
    """Learn from 4,874 mails and 1,416 articles without labels, then from the articles alone.

    `selfsup pretrain DATA/train --task bert --mask-ratio 0.3 --steps 6000 --batch-size 32 --lr 2e-3 --out FIRST`
    `selfsup pretrain DATA/bbc-train --task bert --init FIRST --mask-ratio 0.3 --steps 3000 --batch-size 32 --lr 1e-3`

    Seed 0, 33 and 22 CPU minutes of one thread: 72.6 ± 4.8%, 89.7 ± 3.2%, 92.0 ± 1.0% with 1, 5, 20 labels per class
    by the linear probe (after the first stage 54.5 ± 5.2%, 69.3 ± 4.8%, 79.6 ± 0.8%); untrained 23.4 ± 1.4%,
    32.6 ± 6.1%, 47.7 ± 4.2%; from scratch 30.0 ± 7.8%, 52.5 ± 13.9%, 87.4 ± 2.6%; TF-IDF 53.4 ± 7.8%, 82.7 ± 2.5%,
    94.8 ± 0.9%.
    """
    options: dict[str, Any] = {"task": "bert", "mask_ratio": 0.3, "batch_size": 32, "seed": 0, "device": "cpu"}
    first = selfsup.pretrain(data / "train", steps=6000, lr=2e-3, out=out / "bert-first", **options)
    return selfsup.pretrain(data / "bbc-train", init=first.folder, steps=3000, lr=1e-3, out=out / "bert", **options)


def simcse(data: Path, bert: selfsup.Run, out: Path = Path("runs/text/simcse")) -> selfsup.Run:
    """Continue with SimCSE, on pieces of documents, until it finds each of them.

    `selfsup pretrain DATA/bbc-train --task simcse --pieces --init BERT --steps 50 --batch-size 64 --lr 3e-4`

    Seed 0, 1 CPU minute: 67.9 ± 2.4%, 88.6 ± 3.9%, 92.0 ± 1.3% by the linear probe (after 200 steps 64.1 ± 4.4%,
    87.6 ± 3.5%, 91.2 ± 1.2%).
    """
    return selfsup.pretrain(
        data / "bbc-train", task="simcse", pieces=True, init=bert.folder, steps=50, batch_size=64, lr=3e-4, seed=0,
        device="cpu", out=out,
    )  # fmt: skip


def declutr(data: Path, bert: selfsup.Run, out: Path = Path("runs/text/declutr")) -> selfsup.Run:
    """Continue with DeCLUTR instead of SimCSE.

    `selfsup pretrain DATA/bbc-train --task declutr --mask-ratio 0 --init BERT --steps 300 --batch-size 64 --lr 5e-4`

    Seed 0, 4 CPU minutes: 66.1 ± 5.5%, 90.0 ± 4.1%, 92.8 ± 1.5% by the linear probe.
    """
    return selfsup.pretrain(
        data / "bbc-train", task="declutr", mask_ratio=0.0, init=bert.folder, steps=300, batch_size=64, lr=5e-4, seed=0,
        device="cpu", out=out,
    )  # fmt: skip


def next_word(data: Path, out: Path = Path("runs/text/next_word")) -> selfsup.Run:
    """Learn the next word of BBC News; then evaluate: `benchmarks/text_next_word.py RUN DATA/bbc-train DATA/bbc-test`.

    `selfsup pretrain DATA/bbc-train --task next_word --tokenizer wordpiece:2000 --steps 12000 --batch-size 16
    --lr 2e-3`

    Seed 0, 51 CPU minutes of one thread: 4.004 nats per token on held-out articles; the interpolated trigram has 4.118.
    With a third of the steps it reaches 4.301.
    """
    return selfsup.pretrain(
        data / "bbc-train", task="next_word", tokenizer="wordpiece:2000", steps=12_000, batch_size=16, lr=2e-3, seed=0,
        device="cpu", out=out,
    )  # fmt: skip


def few_labels(data: Path, run: selfsup.Run, scratch: bool = False) -> Evaluation:
    """Measure a run on 708 articles that no task saw, with 1, 5 and 20 labels per class.

    `selfsup evaluate RUN --data DATA/bbc-train --labels folders --test DATA/bbc-test --test-labels folders
    --shots 1,5,20`
    """
    return selfsup.evaluate(
        run, data=data / "bbc-train", labels="folders", test=data / "bbc-test", test_labels="folders", shots="1,5,20",
        scratch=scratch, seed=0, device="cpu",
    )  # fmt: skip


def main(data: Path) -> None:
    """Run all of them, and print the time that each takes."""
    began = time.process_time()

    def show(what: object) -> None:
        print(what, f"{time.process_time() - began:.0f} CPU seconds", sep="\n")

    first = bert(data)
    show(few_labels(data, first, scratch=True))
    show(few_labels(data, simcse(data, first)))
    show(few_labels(data, declutr(data, first)))
    show(next_word(data))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
