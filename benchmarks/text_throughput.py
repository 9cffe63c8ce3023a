"""Tokens per second: masked language modelling against transformers' Trainer, tokenizing against `tokenizers`.

    python benchmarks/text_throughput.py DATA [--rounds 3] [--steps 30] [--batch 32]

The same BERT-Tiny, pieces, batch size, AdamW, precision (float32) and threads; no next sentences; interleaved rounds in
one process, of which the median counts. The Trainer gets its DataCollatorForLanguageModeling, which pads and masks.
Padding is not counted. Both sides start with a warm-up that is not measured. The Trainer needs
`pip install accelerate`.
"""

import argparse
import statistics
import tempfile
import time

import numpy as np
import torch
from lightning_fabric import Fabric

from selfsup.data.open import open_data
from selfsup.data.text.tokens import tokenize
from selfsup.encoders import build_encoder
from selfsup.spec.tokenizer import SPECIAL, special, tokenizer
from selfsup.tasks.text.bert import Bert
from selfsup.train.fit import fit
from selfsup.train.plan import Plan
from selfsup.views.loader import batches


def ours(source, spec, steps, batch):
    """Return tokens per second, and the fraction of the time spent waiting for data."""
    torch.manual_seed(0)
    task = Bert(build_encoder("bert-tiny", spec), next_sentence=False, short_ratio=0.0)
    pieces, views = task.samples(source), task.views(spec)
    plan = {"batch_size": batch, "seed": 0}
    stream = batches(pieces, views, start=0, steps=steps, workers=0, **plan)
    began = time.perf_counter()
    count = sum(int((fetched.batch["x"] != spec.pad).sum()) for fetched in stream)
    waiting = time.perf_counter() - began
    began = time.perf_counter()
    fit(task, pieces, views, Plan(steps=steps, lr=1e-3, **plan), Fabric(accelerator="cpu"), workers=0, quiet=True)
    seconds = time.perf_counter() - began
    return count / seconds, waiting / seconds


def theirs(source, spec, steps, batch):
    """Return the Trainer's tokens per second."""
    from transformers import (
        BertForMaskedLM,
        DataCollatorForLanguageModeling,
        PreTrainedTokenizerFast,
        Trainer,
        TrainingArguments,
    )

    torch.manual_seed(0)
    config = build_encoder("bert-tiny", spec).model.config
    made = tokenizer(spec.tokenizer)
    called = {f"{what}_token": made.id_to_token(special(spec.tokenizer, what)) for what in SPECIAL}
    task = Bert(build_encoder("bert-tiny", spec), next_sentence=False, short_ratio=0.0)
    pieces = task.samples(source)
    order = np.random.default_rng(0).permutation(len(pieces))[: steps * batch]
    items = [{"input_ids": [spec.cls, *pieces.read(int(i)).tolist(), spec.sep]} for i in order]
    trainer = Trainer(
        model=BertForMaskedLM(config),
        args=TrainingArguments(
            tempfile.mkdtemp(), per_device_train_batch_size=batch, max_steps=steps, learning_rate=1e-3, use_cpu=True,
            report_to=[], save_strategy="no", logging_strategy="no", disable_tqdm=True, dataloader_num_workers=0,
        ),
        train_dataset=items,
        data_collator=DataCollatorForLanguageModeling(PreTrainedTokenizerFast(tokenizer_object=made, **called)),
    )  # fmt: skip
    began = time.perf_counter()
    trainer.train()
    return sum(len(item["input_ids"]) for item in items) / (time.perf_counter() - began)


def tokenizing(source, digest):
    """Return our documents per second over those of `encode_batch_fast` alone, on texts that are already in memory."""
    made = tokenizer(digest)
    texts = list(source._texts())
    began = time.perf_counter()
    for start in range(0, len(texts), 1000):
        made.encode_batch_fast(texts[start : start + 1000], add_special_tokens=False)
    raw = time.perf_counter() - began
    began = time.perf_counter()
    tokenize(digest, source._texts, len(texts), f"bench-{time.time_ns()}")
    return raw / (time.perf_counter() - began)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch", type=int, default=32)
    args = parser.parse_args()
    source = open_data(args.data)
    spec = source.spec(128)
    speed = [tokenizing(source, spec.tokenizer) for _ in range(args.rounds)]
    print(f"tokenizing: {statistics.median(speed):.2f} of the raw speed of tokenizers")
    ours(source, spec, 3, args.batch)
    theirs(source, spec, 3, args.batch)
    mine, waits, other = [], [], []
    for _ in range(args.rounds):
        rate, waiting = ours(source, spec, args.steps, args.batch)
        mine.append(rate)
        waits.append(waiting)
        other.append(theirs(source, spec, args.steps, args.batch))
    ratio = statistics.median(a / b for a, b in zip(mine, other, strict=True))
    print(f"selfsup {statistics.median(mine):,.0f} tokens/s, waiting for data {statistics.median(waits):.1%}")
    print(f"Trainer {statistics.median(other):,.0f} tokens/s; ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
