"""The readers that benchmarks share: long measurements must not end with a wrong call after hours."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from selfsup.data.image import Arrays
from selfsup.encoders import build_encoder
from selfsup.source import Labels

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_the_shared_reader_finds_what_can_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    from reading import READERS, read, some

    rng = np.random.default_rng(0)
    y = np.arange(48) // 24
    x = (rng.integers(0, 90, (48, 16, 16, 3)) + 150 * y[:, None, None, None]).astype(np.uint8)
    data = Arrays(x, Labels.of([["dark", "light"][one] for one in y]))
    torch.manual_seed(0)
    spec = data.spec()
    found = read(build_encoder("convnet", spec), spec, data, some(data, 20), [1, 5], draws=2, untrained=True)
    assert found.keys() == {(reader, k) for reader in READERS for k in (1, 5)}
    assert all(len(each) == 2 for each in found.values())
    assert all(min(found[reader, 5]) > 0.9 for reader in READERS), found
    monkeypatch.delitem(sys.modules, "reading")
