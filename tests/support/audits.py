"""Audits that are short, and what all kinds of data ask of them."""

from collections.abc import Mapping
from typing import Any

import pytest

from selfsup.errors import UserError
from selfsup.shortcuts import result, together, trial
from selfsup.shortcuts.together import Answers
from selfsup.shortcuts.trial import Learned, Trial
from selfsup.source import Source


def shorten(monkeypatch: pytest.MonkeyPatch, puzzles: int | None = None) -> None:
    """Let twenty steps be enough, and with `puzzles` also small batches and so many of these."""
    for module in (trial, result):
        monkeypatch.setattr(module, "FEW_STEPS", 20)
    if puzzles is not None:
        monkeypatch.setattr(trial, "BATCH", 32)
        monkeypatch.setattr(together, "MIN_PUZZLES", puzzles)


def learned_or_refused(name: str, source: Source, options: Mapping[str, Any]) -> Answers | None:
    """Return the answers of one step about colours; None for a task that says which encoder it needs."""
    try:
        audited = Trial(name, source, options, seed=0, device="cpu", quiet=True, steps=1)
        answers, steps, _ = audited.learn(audited.probes(["colours"]), {}, 1)
    except UserError as error:
        if "encoder" not in str(error):
            raise
        return None
    assert steps == 1
    assert answers.metric in ("accuracy", "retrieval", "loss")
    return answers


def as_encoder(audited: Trial, probes: Learned, cue: str) -> Learned:
    """Return what the probe of a cue learned, as if the small encoder had: then all that this finds is the cue."""
    answers = probes.answers
    return probes._replace(answers=answers._replace(scores={audited.task.small_encoder: answers.scores[cue]}))
