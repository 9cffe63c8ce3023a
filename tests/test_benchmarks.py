"""What benchmarks share: long measurements must not end with a wrong call after hours, nor tables differ from them."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from selfsup.data.image import Arrays
from selfsup.encoders import build_encoder
from selfsup.evaluation.result import Evaluation
from selfsup.evaluation.score import Score
from selfsup.run import Run
from selfsup.source import Labels

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def beside_the_benchmarks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(BENCHMARKS)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:  # they have names that others may want
        if Path(getattr(sys.modules[name], "__file__", None) or "").parent == BENCHMARKS:
            del sys.modules[name]


def test_the_shared_reader_finds_what_can_be_seen() -> None:
    from reading import READERS, scores, some

    rng = np.random.default_rng(0)
    y = np.arange(48) // 24
    x = (rng.integers(0, 90, (48, 16, 16, 3)) + 150 * y[:, None, None, None]).astype(np.uint8)
    data = Arrays(x, Labels.of([["dark", "light"][one] for one in y]))
    torch.manual_seed(0)
    spec = data.spec()
    encoder = build_encoder("convnet", spec)
    found = scores("mine", encoder, spec, data, some(data, 20), "1,5", draws=2, untrained=True)
    assert found.keys() == {f"mine, {reader}" for reader in READERS}
    assert all(each.keys() == {"1", "5"} and {len(draws) for draws in each.values()} == {2} for each in found.values())
    assert all(min(each["5"]) > 0.9 for each in found.values()), found


def test_what_a_script_takes_from_another_is_there() -> None:
    trees = {path.stem: ast.parse(path.read_text()) for path in BENCHMARKS.glob("*.py")}
    taken = 0
    for script, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module in trees:
                names = {name for one in trees[node.module].body for name in defined(one)}
                missing = {alias.name for alias in node.names} - names
                assert not missing, f"{script}.py takes {missing} from {node.module}.py"
                taken += 1
    assert taken > 10


def defined(node: ast.stmt) -> list[str]:
    """Return the names that a statement at the top of a module defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.ImportFrom | ast.Import):
        return [(alias.asname or alias.name).partition(".")[0] for alias in node.names]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]


def test_the_tables_of_the_documentation_are_those_of_the_results() -> None:
    import results

    pages = results.pages()
    assert pages
    stale = [path.name for path, text in pages.items() if path.read_text() != text]
    assert not stale, "run `python benchmarks/results.py`"
    shown = " ".join(found[3] for text in pages.values() for found in results.MARKED.finditer(text)).split()
    assert sorted(shown) == sorted(path.name for path in results.FILES.glob("*.jsonl")), "a file that no page shows"


def test_a_record_has_every_draw_and_the_tables_pair_them(finished_run: Path, tmp_path: Path) -> None:
    import few_labels
    import methods
    import results

    about = {"data": {"samples": 90}, "test": {"samples": 10}, "metric": "accuracy"}
    values = {"rotation": (0.61, 0.63), "untrained": (0.5, 0.55), "raw pixels": (0.4, 0.3)}
    for seed in range(2):
        scores = [
            Score(
                name, reader, shots, 0.0, 0.0, tuple(one + 0.1 * (reader == "propagate") + 0.01 * seed for one in each)
            )
            for name, each in values.items()
            for reader in ("linear", "propagate")
            for shots in (1, 5, 20, None)
        ]
        found = results.record(
            Run(finished_run), Evaluation(about, tuple(scores)), "digits:train", "rotation pad=3", cpu_s=65.0
        )
        results.write(tmp_path / "results.jsonl", found | {"seed": seed})
    records = results.read(tmp_path / "results.jsonl")
    assert np.allclose(results.grid(records, "rotation", "propagate", "20"), [[0.71, 0.73], [0.72, 0.74]])
    head, _, first, *others = few_labels.table(records).splitlines()
    assert head.endswith("| 1 | 5 | 20 | all |")
    assert first.startswith("| `digits` (90, 10 test), ")
    assert "`rotation pad=3`" in first
    assert "1.1 CPU-minutes, 2 seeds" in first
    assert "62.5 → 72.5 ± " in first
    assert "(**+10.0 ± 0.0**)" in first
    assert [line.split(" | ")[0] for line in others] == ["| untrained", "| raw pixels"]
    ours = methods.table(records).splitlines()[2]  # the best first
    assert ours.startswith("| `rotation pad=3` (seeds: 2) | ")
    assert "+9.5 ± " in ours


def test_a_difference_is_bold_beyond_its_interval_alone() -> None:
    import results

    sure, unsure = np.array([[0.10, 0.11], [0.10, 0.12]]), np.array([[0.10, -0.11], [0.05, -0.02]])
    assert results.gain(sure).startswith("**+10.8 ± ")
    assert results.gain(-sure).startswith("**-10.8 ± ")
    assert results.gain(unsure).startswith("+0.5 ± ")
    assert results.cell(np.array([[0.5]])) == "50.0"


def test_the_other_tables_pair_what_belongs_together() -> None:
    import order
    import suggest

    rng = np.random.default_rng(0)
    base = rng.random((5, 6)) / 10 + 0.5
    about = {"data": "digits", "samples": 90, "rounds": [10, 15, 20, 30, 50, 100]}
    found = [
        about | {"way": way, "run": run, "reached": (base + place / 10).tolist()}
        for place, way in enumerate(suggest.WAYS)
        for run in ("first", "second")
    ]
    lines = suggest.table(found).splitlines()
    assert lines[0] == "| `digits` (90): labels | 10 | 15 | 20 | 30 | 50 | 100 |"
    assert lines[4].startswith("| difference to random | **+10.0 ± 0.0** |")
    assert lines[-1].startswith("| difference to random | **+40.0 ± 0.0** |")

    run = {"data": "moving", "name": "odd_one_out fps=12", "task": "odd_one_out", "encoder": "convnet", "steps": 1500}
    runs = [
        run | {"seed": seed, "cpu_s": 90, "metrics": {"accuracy": 0.8 + seed / 100}, "cues": {"energy": "20.0 ±1.0"}}
        for seed in range(3)
    ]
    scores = {"odd_one_out, propagate": {"5": [0.6, 0.7]}, "untrained, propagate": {"5": [0.5, 0.6]}}
    head, _, row, plain = order.table(
        [*(one | {"scores": scores} for one in runs), runs[0] | {"data": "x"}]
    ).splitlines()
    columns = "accuracy | energy alone | propagated, 5 | minus untrained | CPU-minutes"
    assert head == f"|  | data | encoder | steps | {columns} |"
    assert row.startswith("| `odd_one_out fps=12` | moving | convnet | 1,500 | 81.0 ± ")
    assert "| 20.0 ±1.0 | 65.0 ± " in row
    assert row.endswith("| **+10.0 ± 0.0** | 1.5 |")
    assert plain.endswith("| 80.0 | 20.0 ±1.0 |  |  | 1.5 |")
