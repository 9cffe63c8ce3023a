"""Is next_word better than counting? Nats per token on held-out documents, beside interpolated n-gram models.

    python benchmarks/text_next_word.py RUN TRAIN TEST

RUN is a finished run of next_word on TRAIN. All models share the run's tokenizer, and predict the same tokens: every
token of each piece of the TEST documents, from those before it in the piece. The n-grams are Jelinek-Mercer
interpolations of trigram, bigram, unigram and 1/V, with Witten-Bell's weights (how often the context was seen against
how many different words followed it), which need no tuning; they see the tokens of TRAIN in the same pieces.
"""

import sys
from collections import Counter

import numpy as np
import torch

import selfsup
from selfsup.data.open import open_data


def counted(keys, words, vocabulary):
    """Return how often each (key, word) was seen, and how often and with how many words each key."""
    pairs, times = np.unique(keys * vocabulary + words, return_counts=True)
    seen = Counter(dict(zip(pairs.tolist(), times.tolist(), strict=True)))
    total, kinds = Counter(), Counter()
    for pair, count in seen.items():
        total[pair // vocabulary] += count
        kinds[pair // vocabulary] += 1
    return seen, total, kinds


def contexts(pieces, spec):
    """Return the word and the two before it, [CLS] before the first, for every token of all pieces."""
    columns = [[], [], []]
    for number in range(len(pieces)):
        x = np.concatenate([[spec.cls, spec.cls], pieces.read(number)])
        for column, part in zip(columns, (x[2:], x[1:-1], x[:-2]), strict=True):
            column.append(part)
    return [np.concatenate(column) for column in columns]


def main(folder, train, test):
    run = selfsup.Run(folder)
    spec, task = run.spec, run.load_task()[0]
    v = spec.vocabulary
    before, held_out = (task.samples(open_data(data)) for data in (train, test))
    word, last, older = contexts(before, spec)
    models = [counted(np.zeros_like(word), word, v), counted(last, word, v), counted(last * v + older, word, v)]
    word, last, older = (column.tolist() for column in contexts(held_out, spec))
    losses = np.zeros((3, len(word)))
    for place, (w, a, b) in enumerate(zip(word, last, older, strict=True)):
        p = 1 / v
        for order, ((seen, total, kinds), key) in enumerate(zip(models, (0, a, a * v + b), strict=True)):
            if key in total:
                p = (seen[key * v + w] + kinds[key] * p) / (total[key] + kinds[key])
            losses[order, place] = -np.log(p)
    for name, loss in zip(("unigram", "bigram", "trigram"), losses.mean(1), strict=True):
        print(f"{name}: {loss:.3f} nats per token")
    total = count = 0
    views = task.views(spec)
    with torch.no_grad():
        for start in range(0, len(held_out), 64):
            rows = np.arange(start, min(start + 64, len(held_out)))
            batch = views.fetch(held_out, rows, 0, 0).batch
            tokens = int(held_out.lengths[rows].sum())
            total, count = total + float(task.loss(batch).value) * tokens, count + tokens
    assert count == len(word)
    nats = total / count
    print(f"next_word: {nats:.3f} nats per token, {nats / np.log(2) / spec.bytes_per_token:.3f} bits per byte")
    print(f"{count:,} held-out tokens, {before.lengths.sum():,} of training, V = {v:,}, ln V = {np.log(v):.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
