"""compare: one equal budget, halving, parts without overlap, verdicts, and resuming after a kill."""

import json
import os
import re
import shlex
import signal
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

import selfsup
from selfsup.base.printing import write
from selfsup.cli import main
from selfsup.comparison import tournament
from selfsup.comparison.candidates import Candidate, find_candidates
from selfsup.comparison.clock import plan_again
from selfsup.comparison.judging import Accuracy, accuracy, difference, draw, marks, score, split_labels
from selfsup.comparison.plan import State, plan_stages, plan_steps, whole_runs
from selfsup.comparison.result import Comparison
from selfsup.comparison.speed import Spent, Trial, speeds
from selfsup.data.image import Arrays
from selfsup.data.open import open_data
from selfsup.encoders import build_encoder
from selfsup.errors import RunFailed, UserError
from selfsup.evaluation.few_labels import training_steps
from selfsup.source import Labels
from selfsup.task import Loss, Task
from selfsup.tasks.image.rotation import Rotation
from selfsup.train.device import make_fabric
from selfsup.train.plan import Milestone, Plan
from selfsup.train.signals import Interrupted
from support import kills, steady

SMALL = {"encoder": "convnet", "batch_size": 16, "quiet": True, "precision": "float32", "shots": 3}


class Plain(Rotation):
    """Rotation on images that are neither shifted nor flipped."""

    def __init__(self, encoder):
        super().__init__(encoder, pad=0, flip=0.0)


class Collapsing(Rotation):
    """Makes all features the same, which no probe can read."""

    def loss(self, batch):
        return Loss(self.encoder(batch["x"]).square().mean())


class Exploding(Rotation):
    """Its loss becomes NaN at the third step."""

    def loss(self, batch):
        loss = super().loss(batch)
        return loss._replace(value=loss.value * float("nan")) if self.progress > 2.5 / 8 else loss


class Breaking(Rotation):
    """Breaks in a run of its own, past what the speed is measured on."""

    def representation(self):
        raise IndexError("out of\nrange")


class Broken(Rotation):
    """Cannot take a step."""

    def loss(self, batch):
        raise ValueError("no\nway")


class Context(Rotation):
    """Has an option without a default."""

    def __init__(self, encoder, *, far):
        super().__init__(encoder)


class Sound(Rotation):
    """Not for images."""

    kind = "audio"


TOYS = (Plain, Rotation, Collapsing)


@pytest.fixture(scope="module")
def source() -> Arrays:
    whole = open_data("digits")
    assert isinstance(whole, Arrays)
    return whole.take(np.arange(300))


@pytest.fixture(autouse=True)
def equal_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every task takes 0.15 s a step, so that 0.1 minutes are 20 steps for each of two, whatever the machine does."""
    steady.steady(monkeypatch.setattr)
    fixed = tournament.speeds

    def measured(trials: dict[str, Trial], *_: object) -> tuple[dict[str, float], dict[str, Exception]]:
        seconds, failed = fixed(trials)  # type: ignore[call-arg]
        for name, (task, data, views, _) in trials.items():
            try:
                task(views.finish(views.fetch(data, np.arange(4), 0, 0).batch))
            except Exception as error:
                failed[name] = error
                del seconds[name]
        return seconds, failed

    monkeypatch.setattr(tournament, "speeds", measured)


@pytest.fixture
def quick_scratch(monkeypatch: pytest.MonkeyPatch) -> None:
    steady.quick_scratch(monkeypatch.setattr)


# The budget


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 13])
def test_stages_halve_until_two_have_whole_runs(count: int) -> None:
    stages = plan_stages(count, halving=True)
    counts, shares = zip(*stages, strict=True)
    assert counts[0] == count
    assert counts[-1] == min(count, 2)
    assert shares[-1] == 1
    assert all(after == 2 * before for before, after in pairwise(shares))
    assert all(after >= before / 2 for before, after in pairwise(counts))
    assert plan_stages(count, halving=False) == [(count, 1.0)]


def test_minutes_are_shared_equally_and_not_exceeded() -> None:
    cost = {"a": 0.1, "b": 0.01, "c": 0.033, "d": 0.2, "e": 0.05}
    plan = plan_steps(cost, 3.0, halving=True)
    for name, entry in plan["candidates"].items():
        spent = entry["steps"][-1] * cost[name] / 60
        assert plan["minutes_each"] - cost[name] / 60 <= spent <= plan["minutes_each"], "an equal time for each"
        assert entry["steps"] == sorted(set(entry["steps"]))
    stages = [(stage["candidates"], stage["fraction"]) for stage in plan["stages"]]
    assert whole_runs(stages) * plan["minutes_each"] == pytest.approx(3.0)


def test_too_few_minutes_leave_the_slow_out_and_say_how_many_are_enough() -> None:
    cost = {"a": 0.001, "b": 2.0, "c": 0.1}
    plan = plan_steps(cost, 0.01, halving=True)
    assert list(plan["candidates"]) == ["a", "c"], "the others are compared"
    assert re.match(r"--minutes 0.01 leave 0 steps of 2 s; give at least", plan["left_out"]["b"])
    stages = [(stage["candidates"], stage["fraction"]) for stage in plan["stages"]]
    assert whole_runs(stages) * plan["minutes_each"] == pytest.approx(0.01), "the time of the slow one is theirs"
    enough = float(re.search(r"at least ([0-9.e+]+)", plan["left_out"]["b"])[1])
    assert plan_steps(cost, enough, halving=True)["candidates"]["b"]["steps"][0] >= 1
    with pytest.raises(UserError, match=r"b: --minutes 1e-06 .*; c: .*; a: .*give at least"):
        plan_steps(cost, 1e-6, halving=True)


def test_the_minutes_are_for_everything() -> None:
    cost = {"a": 0.1, "b": 0.01, "c": 0.033, "d": 0.2, "e": 0.05}
    plan = plan_steps(cost, 10.0, halving=True, scoring=6.0, other=120.0)
    stages = [(stage["candidates"], stage["fraction"]) for stage in plan["stages"]]
    scored = sum(count for count, _ in stages)
    assert whole_runs(stages) * plan["minutes_each"] + scored * 0.1 + 2 == pytest.approx(10.0)
    with pytest.raises(UserError) as refused:
        plan_steps({"a": 0.1}, 2.0, halving=True, scoring=6.0, other=120.0)
    enough = float(re.search(r"at least ([0-9.e+]+)", str(refused.value))[1])
    assert plan_steps({"a": 0.1}, enough, halving=True, scoring=6.0, other=120.0)["candidates"]["a"]["steps"][0] >= 1


def test_a_new_plan_keeps_the_place_in_the_schedule() -> None:
    entry = {"steps": [25, 50, 100], "done": 25, "whole": 100}
    old = Plan(100)
    plan_again([entry], 1, 0.4, 60.0)
    assert entry["steps"] == [25, 35, 55]
    new = Plan(55, milestones=tuple(Milestone(*one) for one in entry["milestones"]))
    assert new.progress(25) == old.progress(25)
    assert new.progress(35) == pytest.approx(old.progress(50)), "a stage ends where it would have ended"
    entry["done"] = 45  # half-way through the last stage
    plan_again([entry], 2, 0.5, 90.0)
    assert entry["steps"] == [25, 35, 50]
    newer = Plan(50, milestones=tuple(Milestone(*one) for one in entry["milestones"]))
    assert newer.progress(45) == new.progress(45)
    assert newer.progress(50) == 1


def test_the_measured_speed_is_that_of_the_loop(source: Arrays) -> None:
    """A task that computes after each step is charged for it, stays as it was, and one that fails stops no other."""

    class Slow(Rotation):
        def after_step(self) -> None:
            end = time.process_time() + 0.1
            while time.process_time() < end:
                pass

    class Failing(Rotation):
        def after_step(self) -> None:
            raise ValueError("no")

    kinds = {"plain": Rotation, "slow": Slow, "failing": Failing}
    tasks = {name: kind(build_encoder("convnet", source.spec())) for name, kind in kinds.items()}
    before = {key: value.clone() for key, value in tasks["slow"].state_dict().items()}
    trials = {name: Trial(task, source, task.views(source.spec()), 16) for name, task in tasks.items()}
    seconds, failed = speeds(trials, make_fabric("cpu", "float32"), 0, 0.1)
    assert seconds.keys() == {"plain", "slow"}
    assert failed.keys() == {"failing"}
    assert seconds["slow"] > 0.08
    assert seconds["slow"] > 2 * seconds["plain"]
    assert all(torch.equal(value, before[key]) for key, value in tasks["slow"].state_dict().items())


def test_a_busy_moment_does_not_change_the_budgets(source: Arrays, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of one task runs five times slower, as beside another program; its steps stay the same."""
    task = Rotation(build_encoder("convnet", source.spec()))
    clock = {"wall": 0.0, "cpu": 0.0}

    def fit(measured: Task, *_: object, until: int, **__: object) -> None:
        clock["wall"] += 1
        for _ in range(until):
            clock["cpu"] += 0.5
            clock["wall"] += 2.5 if hasattr(measured, "busy") else 0.5
            measured.after_step()

    monkeypatch.setattr("selfsup.comparison.speed.fit", fit)
    monkeypatch.setattr("selfsup.comparison.speed._now", lambda _: Spent(**clock))
    busy = Rotation(build_encoder("convnet", source.spec()))
    busy.busy = True
    views = task.views(source.spec())
    trials = {name: Trial(busy if name == "busy" else task, source, views, 16) for name in ("busy", "a", "b")}
    seconds, _ = speeds(trials, make_fabric("cpu", "float32"), 0, 600)
    assert seconds == pytest.approx({"busy": 0.5, "a": 0.5, "b": 0.5})
    before = clock["wall"]
    speeds(trials, make_fabric("cpu", "float32"), 0, 30)
    assert clock["wall"] - before < 30, "a second round would take too long"


# Stopping at a stage


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_stopping_at_stages_and_resuming_equals_never_stopping(source: Arrays, tmp_path: Path, optimizer: str) -> None:
    options = {"encoder": "convnet", "batch_size": 16, "steps": 12, "seed": 3, "quiet": True, "optimizer": optimizer}
    whole = selfsup.pretrain(source, **options, out=tmp_path / "whole")
    for until in (3, 3, 7):
        run = selfsup.pretrain(source, **options, until=until, out=tmp_path / "stopped")
        assert not run.done
        assert run.load_task(Rotation)[1] == until
    assert selfsup.pretrain(source, **options, until=2, out=tmp_path / "stopped").load_task(Rotation)[1] == 7
    run = selfsup.pretrain(source, **options, out=tmp_path / "stopped")
    assert run.done
    names = ("encoder.safetensors", "checkpoint/latest.safetensors")
    for name in names:
        assert (run.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name
    lines = [[json.loads(line) for line in (r.folder / "metrics.jsonl").open()] for r in (whole, run)]
    assert [line["step"] for line in lines[1]] == list(range(1, 13)), "each step is logged once"
    assert [line["lr"] for line in lines[0]] == [line["lr"] for line in lines[1]], "the schedule is of the whole run"
    assert selfsup.pretrain(source, **options, until=12, out=tmp_path / "to the end").done


# The parts and the intervals


def labelled(*counts: int, bare: int = 0) -> Arrays:
    """Return different images: so many of each class, and some without a label."""
    names = [name for name, count in zip("abcdefghij", counts, strict=False) for _ in range(count)] + [""] * bare
    x = np.random.default_rng(0).integers(0, 256, (len(names), 8, 8), dtype=np.uint8)
    labels = Labels.of(["a" if name == "" else name for name in names])
    labels.ids[len(names) - bare :] = -1
    return Arrays(x, labels)


def test_a_fifth_is_chosen_on_and_a_fifth_is_measured_on() -> None:
    data = labelled(260, 260, bare=7)
    parts = split_labels(data, None, seed=1)
    ((pool, select, test),) = parts.folds
    assert np.array_equal(np.sort(np.concatenate([pool, select, test])), np.arange(520)), "each label is in one part"
    assert parts.unlabelled.tolist() == list(range(520, 527))
    for part, count in ((pool, 156), (select, 52), (test, 52)):
        assert np.bincount(data.labels.ids[part]).tolist() == [count, count]
    own = labelled(40, 40)
    parts = split_labels(data, own, seed=1)
    assert [len(part) for part in parts.folds[0]] == [416, 104, 0]
    assert parts.test is not own, "whose labels may be numbered otherwise"
    assert np.array_equal(parts.test.x, own.x)


@pytest.fixture
def enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty samples of a class are enough to measure on, fewer are not, as for a user."""
    monkeypatch.setattr("selfsup.comparison.judging.ENOUGH", 50)


@pytest.mark.parametrize("counts", [(10, 10), (2, 2), (2, 2, 2, 2, 2, 2, 2, 2, 2, 2), (9, 1), (2, 1, 1)])
def test_of_few_labels_each_is_measured_on_in_turn(counts: tuple[int, ...], enough: None) -> None:
    data = labelled(*counts, bare=5)
    parts = split_labels(data, None, seed=0)
    measured = np.concatenate([fold.select for fold in parts.folds])
    alone = [number for number, name in enumerate(data.labels.ids) if counts[name] == 1 and name >= 0]
    assert np.array_equal(np.sort([*measured, *alone]), np.arange(sum(counts)))
    drawn, shots = draw(parts, 10, 5, 0)
    assert shots == max(1, min(np.bincount(data.labels.ids[fold.pool]).max() for fold in parts.folds) // 2)
    assert len(drawn) >= 5
    for one in drawn:
        fold = parts.folds[one.fold]
        assert set(one.numbers) <= set(fold.pool)
        assert not set(fold.select) & {*fold.pool, *parts.unlabelled}, "no sample that is measured on is in the graph"


def test_too_few_labels_are_refused_with_a_remedy(enough: None) -> None:
    with pytest.raises(UserError, match=r"no class of .* has two labels, .*: give more labels"):
        split_labels(labelled(1, 1, 1), None, 0)
    with pytest.raises(UserError, match="are of one class"):
        split_labels(labelled(5), None, 0)


def test_draws_differ_and_shots_are_lowered_for_that() -> None:
    parts = split_labels(labelled(260, 260), None, 0)
    for shots, taken in ((156, 78), (155, 155), (3, 3)):
        drawn, found = draw(parts, shots, 5, 0)
        assert found == taken
        assert len({tuple(one.numbers) for one in drawn}) > 1
        assert all(np.bincount(parts.data.labels.ids[one.numbers]).tolist() == [taken, taken] for one in drawn)


def test_intervals_cover_new_draws_and_new_items() -> None:
    """Draws and items both vary, and so does the difference of two that are equally good."""
    generator = np.random.default_rng(0)
    covered = apart = 0
    for _ in range(300):
        luck, ease = generator.normal(0, 0.3, (5, 1)), generator.normal(0, 1, 80)
        right = generator.random((2, 5, 80)) < 1 / (1 + np.exp(-(luck + ease)))
        one, other = (score([marks(draw, np.arange(80), 80) for draw in r]) for r in right)
        mean, half = accuracy(one)
        covered += abs(mean - 0.5) < half
        by, half = difference(one, other)
        apart += abs(by) > half
    assert covered / 300 > 0.92
    assert apart / 300 < 0.07


def test_fewer_draws_are_compared_with_the_same_draws() -> None:
    """One draw was easy for both; a difference of means over other draws would be wrong by 40 points."""
    one, other = score(["1111111111", "1100000000", "1000000000"]), score(["1111111110"])
    by, half = difference(one, other)
    assert by == pytest.approx(0.1)
    assert 0.3 < half < 9, "the luck of a single draw is that of the other score"
    assert difference(other, one) == pytest.approx((-by, half))
    assert np.isnan(accuracy(other)[1])
    by, half = difference(score(["11----", "--10--", "----11"]), score(["10----", "--00--", "----01"]))
    assert by == 0.5
    assert half == pytest.approx(0), "each fold has samples of its own"


# Who takes part


def test_tasks_are_parsed_with_their_options(source: Arrays, monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = find_candidates("rotation, rotation( flip=0, pad=3 )", source)
    assert [(c.name, c.folder, c.options) for c in found.values()] == [
        ("rotation", "rotation", {}),
        ("rotation(flip=0,pad=3)", "rotation-flip=0-pad=3", {"flip": 0.0, "pad": 3}),
    ]
    found, left_out = find_candidates("all", source)
    assert "rotation" in found
    assert left_out["s4l"].startswith("it needs labels")
    assert not {"bert", "supervised"} & (found.keys() | left_out.keys())  # for texts, and for any data: a baseline
    assert find_candidates([Sound, Plain], source)[1] == {"Sound": "it is for audio, not image"}
    names = ["context", "rotation"]
    monkeypatch.setattr("selfsup.comparison.candidates.TASKS", names)
    monkeypatch.setattr("selfsup.comparison.candidates.find_task", {"context": Context, "rotation": Rotation}.get)
    monkeypatch.setattr("selfsup.tasks.resolve.find_task", {"context": Context, "rotation": Rotation}.get)
    assert find_candidates("all", source)[1] == {"context": "context needs --far"}
    with pytest.raises(UserError, match="context needs --far"):
        find_candidates("context", source)


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ("rotaton", "unknown task 'rotaton'; did you mean 'rotation'"),
        ("rotation,rotation", "names 'rotation' twice"),
        ("rotation(flop=1)", "unknown option of rotation 'flop'; did you mean 'flip'"),
        ("rotation(flip)", "written name=value, not 'flip'"),
        ("rotation(pad=x)", "pad takes int, not 'x'"),
        ("byol(momentum=x)", "momentum takes float, not 'x'"),
        ("rotation(pad=3", "names separated by commas"),
        ("", "names no task"),
        ("supervised", "supervised: it needs labels"),
    ],
)
def test_bad_tasks_are_refused_before_anything_is_written(tasks: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        selfsup.compare("digits", tasks=tasks, out=tmp_path / "c", **SMALL)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draws": 4}, "--draws must be at least 5"),
        ({"minutes": 0}, "--minutes must be more than 0"),
        ({"shots": 0}, "--shots must be a whole number from 1"),
        ({"test_labels": "folders"}, "--test-labels are of --test"),
        ({"batch_size": 5000}, "--batch-size must be at most 1797"),
        ({"minutes": 1e-5}, "give at least"),
    ],
)
def test_bad_options(options: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        selfsup.compare("digits", tasks="rotation", out=tmp_path / "c", **{**SMALL, **options})
    assert not (tmp_path / "c").exists()


# The whole


def test_with_labels(source: Arrays, tmp_path: Path, quick_scratch: None) -> None:
    result = selfsup.compare(source, tasks=TOYS, minutes=0.2, out=tmp_path / "c", **SMALL)
    assert (tmp_path / "c" / "compare.png").read_bytes()[:4] == b"\x89PNG"
    assert set(result.ranking) == {*result.finalists, "raw pixels", "untrained", "from scratch"}
    assert len(result.finalists) == 2
    assert len(result.stopped) == 1
    stages_done = {name: len(result.state.scores[name]) for name in ("Plain", "Rotation", "Collapsing")}
    assert sorted(stages_done.values()) == [1, 2, 2]
    for name in stages_done:
        run = selfsup.Run(tmp_path / "c" / name)
        assert run.done == (name in result.finalists)
        steps = result.state.plan["candidates"][name]["steps"]
        assert run.recipe["plan"]["steps"] == steps[-1], "every run is planned for the whole"
        assert run.load_task({kind.__name__: kind for kind in TOYS}[name])[1] == steps[stages_done[name] - 1]
    first = {name: accuracy(result.state.scores[name][0]["select"])[0] for name in stages_done}
    assert first[result.stopped[0]] == min(first.values()), "one with the lowest accuracy was stopped"
    means = [accuracy(result.state.scores[name][-1]["select"])[0] for name in result.ranking]
    assert means == sorted(means, reverse=True)
    text = str(result)
    assert text.startswith(("It helps: ", "No task helps here: ", "It cannot be told with 60 test samples"))
    assert "played no part in the choice" in " ".join(text.split())
    assert "read by propagate" in " ".join(text.split())
    assert "Minutes planned: 0.0 measuring, 0.2 training 3 tasks" in " ".join(text.split())
    json.dumps(result.as_json())

    before = (tmp_path / "c" / "compare.json").read_bytes()
    again = selfsup.compare(source, tasks=TOYS, minutes=0.2, out=tmp_path / "c", **SMALL)
    assert again.as_json() == result.as_json()
    assert (tmp_path / "c" / "compare.json").read_bytes() == before, "a finished comparison is left alone"
    with pytest.raises(UserError, match=r"holds another comparison.*minutes: 0\.2 here, 0\.3 requested"):
        selfsup.compare(source, tasks=TOYS, minutes=0.3, out=tmp_path / "c", **SMALL)


def test_results_follow_from_the_plan(source: Arrays, tmp_path: Path) -> None:
    """A stage's score is that of an ordinary run, and the printed command's options give the same weights."""
    tasks = (Plain, Rotation)
    result = selfsup.compare(source, tasks=tasks, minutes=0.05, scratch=False, out=tmp_path / "c", **SMALL)
    steps = result.state.plan["candidates"]["Plain"]["steps"][-1]
    options = {key: SMALL[key] for key in ("encoder", "batch_size", "quiet", "precision")}
    alone = selfsup.pretrain(source, task=Plain, steps=steps, out=tmp_path / "alone", **options)
    files = [(folder / "encoder.safetensors").read_bytes() for folder in (alone.folder, tmp_path / "c" / "Plain")]
    assert files[0] == files[1]


def test_the_printed_commands_resume(
    source: Arrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_scratch: None
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("selfsup.data.open._digits", lambda: source)
    options = {**SMALL, "size": 8}
    tasks = "rotation(flip=0,pad=0),rotation(pad=1),rotation"
    result = selfsup.compare("digits", tasks=tasks, minutes=0.1, out="c", **options)
    assert set(result.commands) == set(tasks.replace("),", ")|").split("|"))
    for name, command in result.commands.items():
        assert main([*shlex.split(command)[1:], "--quiet"]) == 0
        run = selfsup.Run(Path("c") / Candidate(name, name, {}).folder)
        assert run.done
    monkeypatch.setattr(tournament, "pretrain", lambda *_, **__: pytest.fail("nothing is trained again"))
    assert selfsup.compare("digits", tasks=tasks, minutes=0.1, out="c", **options).as_json() == result.as_json()


def test_without_labels_nobody_is_stopped_and_the_output_says_how_far_to_trust(source: Arrays, tmp_path: Path) -> None:
    bare = Arrays(source.x)
    result = selfsup.compare(bare, tasks=TOYS, minutes=0.05, out=tmp_path / "c", **SMALL)
    assert len(result.finalists) == 3
    assert result.stopped == []
    ranks = [result.state.scores[name][-1]["measures"]["rankme"] for name in result.finalists]
    assert ranks == sorted(ranks, reverse=True)
    text = " ".join(str(result).split())
    assert "weak evidence" in text
    assert "RankMe" in text
    assert "accuracy with" not in text
    assert "from scratch" not in result.state.scores
    assert (tmp_path / "c" / "compare.png").exists()
    with pytest.raises(UserError, match="--test is of no use without labels"):
        selfsup.compare(bare, tasks=TOYS, test="digits", out=tmp_path / "d", **SMALL)


def test_what_fails_is_reported_and_does_not_stop_the_others(
    source: Arrays, tmp_path: Path, quick_scratch: None
) -> None:
    tasks = (Exploding, Plain, Broken, Breaking)
    result = selfsup.compare(source, tasks=tasks, minutes=0.06, out=tmp_path / "c", **SMALL)
    assert result.finalists == ["Plain"]
    assert result.state.plan["left_out"] == {"Broken": "ValueError: no way"}
    assert "the loss is nan" in result.state.failed["Exploding"]
    assert result.state.failed["Breaking"] == "IndexError: out of range"
    assert "Exploding failed: the loss is nan" in " ".join(str(result).split())
    with pytest.raises(RunFailed, match="no task finished: Exploding: the loss is nan"):
        selfsup.compare(source, tasks=(Exploding,), minutes=0.02, out=tmp_path / "d", **SMALL)
    with pytest.raises(UserError, match="no task of --tasks can run on digits: Broken: ValueError: no way"):
        selfsup.compare(source, tasks=(Broken,), minutes=0.02, out=tmp_path / "e", **SMALL)
    assert not (tmp_path / "e").exists()


def test_a_run_that_was_continued_meanwhile_is_not_compared(
    source: Arrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**SMALL, "minutes": 0.1, "scratch": False, "out": tmp_path / "c"}
    with monkeypatch.context() as patch:
        stop_after(patch, 8)
        with pytest.raises(Interrupted):
            selfsup.compare(source, tasks=TOYS, **options)
    plan = json.loads((tmp_path / "c" / "compare.json").read_text())["plan"]
    selfsup.pretrain(
        source, task=Plain, steps=plan["candidates"]["Plain"]["steps"][-1], out=tmp_path / "c" / "Plain",
        **{key: SMALL[key] for key in ("encoder", "batch_size", "quiet", "precision")},
    )  # fmt: skip
    result = selfsup.compare(source, tasks=TOYS, **options)
    assert "was continued to step" in result.state.failed["Plain"]


def test_copies_between_the_parts_are_counted(tmp_path: Path, source: Arrays) -> None:
    test = source.take(np.arange(30))
    result = selfsup.compare(
        source, tasks=(Plain,), test=test, minutes=0.01, scratch=False, out=tmp_path / "c", **SMALL
    )
    assert result.state.plan["copies"] == 30
    assert "30 test samples are copies" in " ".join(str(result).split())
    assert "Pretraining saw" not in str(result)


# The verdict


def compared(tmp_path: Path, **right: float) -> Comparison:
    """Return a comparison where each is right with these probabilities on 400 items, in five draws."""
    generator = np.random.default_rng(0)
    ease = generator.random(400)

    def of(p: float) -> dict:
        return score([marks(generator.random(400) * 0.2 + 0.8 * ease < p, np.arange(400), 400) for _ in range(5)])

    scores = {name.replace("_", " "): [{part: of(p) for part in ("select", "test")}] for name, p in right.items()}
    plan = {
        "stages": [{"candidates": 2, "fraction": 1.0}], "parts": {"select": 400, "test": 400, "unlabelled": 0},
        "shots": 5, "draws": 5, "planned": {}, "milestones": [], "copies": 0, "warnings": [],
        "candidates": {name: {"steps": [4], "seconds_per_step": 1} for name in ("a", "b")}, "left_out": {},
    }  # fmt: skip
    asked = {"labelled": True, "shots": 5, "draws": 5, "test": None, "minutes": 1, "scratch": True}
    commands = {"a": f"selfsup pretrain photos/ --task a --out {tmp_path / 'a'} --steps 4 --lr 0.002 --flip 0"}
    return Comparison(tmp_path, State(tmp_path, asked, plan, scores), commands)


def verdict(tmp_path: Path, **right: float) -> str:
    return " ".join(compared(tmp_path, **right).verdict())


@pytest.mark.parametrize("width", [80, 120])
def test_its_table_fits_and_its_commands_can_be_copied(tmp_path: Path, width: int) -> None:
    found = compared(tmp_path, a=0.9, b=0.5, **BASELINES)
    found.state.plan["stages"] = [{"candidates": 2, "fraction": part} for part in (0.25, 0.5, 1.0)]
    for name in ("a", "b"):
        found.state.scores[name] *= 3
        found.state.plan["candidates"][name]["steps"] = [100, 200, 400]
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        write(console, found.__rich__())
    text = captured.get()
    assert max(len(line.rstrip()) for line in text.splitlines() if str(tmp_path) not in line) <= width
    assert "…" not in text
    assert len(re.findall(r"\d\d\.\d ±\d\.\d", text.partition("Minutes planned")[0].partition("━")[2])) == 2 * 4 + 3 * 2
    command = text.partition("The run of a:\n")[2].replace(" \\\n", " ")
    assert shlex.split(command) == shlex.split(found.commands["a"])


BASELINES = {"raw_pixels": 0.3, "untrained": 0.35, "from_scratch": 0.4}


def test_a_clear_winner(tmp_path: Path) -> None:
    text = verdict(tmp_path, a=0.9, b=0.7, **BASELINES)
    assert re.match(
        r"It helps: with 5 labels per class, a \(propagate\) is right on \d\d\.\d% ±\d\.\d of 400 test", text
    )
    assert "points more than from scratch" in text, "the best baseline is always named"
    assert "a is ahead of b" in text
    assert "a was chosen on 400 labelled samples; the test samples played no part in the choice" in text
    assert "cannot be told" not in text


def test_two_that_cannot_be_told_apart(tmp_path: Path) -> None:
    text = verdict(tmp_path, a=0.80, b=0.80, **BASELINES)
    assert text.startswith("It helps")
    assert re.search("(a and b|b and a) .* cannot be told apart with 400 test samples", text)


def test_a_baseline_that_wins_is_said_plainly(tmp_path: Path) -> None:
    text = verdict(tmp_path, a=0.6, b=0.5, **{**BASELINES, "raw_pixels": 0.9})
    assert re.match("No task helps here: .* points less than raw pixels .*, a baseline", text)


def test_a_baseline_as_good_as_the_best_task(tmp_path: Path) -> None:
    text = verdict(tmp_path, a=0.6, b=0.5, **{**BASELINES, "raw_pixels": 0.6})
    assert text.startswith("It cannot be told with 400 test samples whether a task helps: ")


# Interrupted


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Send this process SIGTERM during the given step, counted over all tasks."""
    done = 0

    def after_step(task: Rotation) -> None:
        nonlocal done
        done += 1
        if done == step:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Rotation, "after_step", after_step)


def everything(folder: Path) -> dict[str, bytes]:
    names = [folder / "compare.json", *sorted(folder.glob("*/encoder.safetensors"))]
    return {str(path.relative_to(folder)): path.read_bytes() for path in names}


def test_interrupted_at_any_stage_resumes_to_the_same_result(
    source: Arrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**SMALL, "minutes": 0.1, "scratch": False}
    selfsup.compare(source, tasks=TOYS, out=tmp_path / "whole", **options)
    for step in (12, 22):  # in each of the two stages
        with monkeypatch.context() as patch:
            stop_after(patch, step)
            with pytest.raises(Interrupted, match="same command"):
                selfsup.compare(source, tasks=TOYS, out=tmp_path / "stopped", **options)
    selfsup.compare(source, tasks=TOYS, out=tmp_path / "stopped", **options)
    assert everything(tmp_path / "stopped") == everything(tmp_path / "whole")


def test_from_scratch_resumes_at_the_next_draw(
    source: Arrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_scratch: None
) -> None:
    trained: list[int] = []
    quick = Accuracy.scratch

    def stopping(self: Accuracy, make: object, number: int, seed: int) -> dict:
        trained.append(number)
        if trained == [0, 1, 2]:
            raise Interrupted(signal.SIGINT, 7, 200, None)
        return quick(self, make, number, seed)  # type: ignore[arg-type]

    monkeypatch.setattr(Accuracy, "scratch", stopping)
    options = {**SMALL, "minutes": 0.01, "out": tmp_path / "c"}
    with pytest.raises(Interrupted, match=r"stopped at step 2 of 5 by SIGINT: saved in .*; .*same command"):
        selfsup.compare(source, tasks=(Plain,), **options)
    result = selfsup.compare(source, tasks=(Plain,), **options)
    assert trained == [0, 1, 2, 2, 3, 4]
    assert len(result.state.scores["from scratch"][0]["select"]["values"]) == 5


def test_from_scratch_is_trained_and_scored(source: Arrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfsup.evaluation.few_labels.STEPS", (100, 100))  # enough to be better than chance
    result = selfsup.compare(source, tasks=(Plain,), minutes=0.01, out=tmp_path / "c", **SMALL)
    mean, half = accuracy(result.state.scores["from scratch"][-1]["select"])
    assert mean - half > 0.1


def test_killed_at_random_resumes_to_the_same_result(tmp_path: Path, source: Arrays) -> None:
    np.savez(tmp_path / "data.npz", x=source.x[:150], y=source.labels.ids[:150])
    options = "--minutes 0.06 --encoder convnet --batch-size 16 --precision float32 --shots 3 --quiet --out"
    tasks = "rotation,rotation(pad=0),rotation(pad=1)"
    words = ["compare", str(tmp_path / "data.npz"), "--tasks", tasks, *options.split()]
    out = tmp_path / "killed"
    kills.run([*words, str(tmp_path / "whole")])
    kills.kill_while([*words, str(out)], lambda: list(out.glob("*/metrics.jsonl")), (0.01, 0.03, 0.05), pause=0.0)
    kills.run([*words, str(out)])
    assert everything(out) == everything(tmp_path / "whole")


def test_a_folder_that_is_no_comparison_and_a_damaged_file(tmp_path: Path, source: Arrays) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "mine.txt").write_text("hello")
    with pytest.raises(UserError, match="does not hold a comparison"):
        selfsup.compare(source, tasks=(Plain,), out=tmp_path / "c", **SMALL)
    (tmp_path / "c" / "compare.json").write_text('{"asked": 3}')
    with pytest.raises(UserError, match=r"compare\.json is damaged"):
        selfsup.compare(source, tasks=(Plain,), out=tmp_path / "c", **SMALL)


def test_without_scratch_it_is_left_out_and_said(source: Arrays, tmp_path: Path) -> None:
    result = selfsup.compare(source, tasks=(Plain,), minutes=0.05, scratch=False, out=tmp_path / "c", **SMALL)
    assert "from scratch" not in result.state.scores
    told = str(result)
    assert "Training from scratch was not compared (--no-scratch)." in told
    assert "learns next to nothing in fewer than 50 steps: Plain" in told
    assert re.search(r"\d\d\.\d ±\d", told), "per cent, as evaluate prints them"


# The clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Return a clock that the steps of runs move on, 0.195 s each; at step `stop` this process gets SIGTERM."""
    time = {"now": 0.0, "steps": 0, "stop": -1}
    monkeypatch.setattr("selfsup.comparison.plan.now", lambda: time["now"])

    def after_step(task: Rotation) -> None:
        time["now"] += 0.195
        time["steps"] += 1
        if time["steps"] == time["stop"]:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Rotation, "after_step", after_step)
    return time


def test_a_machine_that_became_slower_gets_a_new_plan(source: Arrays, tmp_path: Path, clock: dict) -> None:
    """The same for all that are left; and a comparison that was stopped after it follows it as well."""
    options = {**SMALL, "minutes": 0.2, "tasks": TOYS, "scratch": False}
    result = selfsup.compare(source, out=tmp_path / "c", **options)
    first, half_way = result.state.plan["milestones"]
    assert (first["at"], first["pace"], half_way["factor"]) == ([1, 0.5], 1.3, 1.0)
    assert 0.1 < first["factor"] < 0.7
    assert result.state.seconds() == pytest.approx(0.2 * 60, rel=0.1)
    for name in result.finalists:
        entry = result.state.plan["candidates"][name]
        recipe = selfsup.Run(tmp_path / "c" / name).recipe
        assert (recipe["plan"]["steps"], recipe["plan"]["milestones"]) == (entry["steps"][-1], entry["milestones"])
        assert recipe["budget"] == {"steps": entry["whole"]}
        assert entry["steps"][-1] < entry["whole"]
        lines = [json.loads(line) for line in (tmp_path / "c" / name / "metrics.jsonl").open()]
        assert len(lines) == entry["steps"][-1]
        rates = [line["lr"] for line in lines]
        assert rates[-1] < 0.05 * max(rates), "the schedule comes to its end"
        assert max(abs(b - a) for a, b in pairwise(rates[3:])) < 0.2 * max(rates), "and does not jump"
    assert "took 1.3 times as long as measured" in " ".join(str(result).split())
    clock["stop"] = clock["steps"] + 3 * result.state.plan["candidates"]["Plain"]["steps"][0] + 8
    with pytest.raises(Interrupted):
        selfsup.compare(source, out=tmp_path / "stopped", **options)
    selfsup.compare(source, out=tmp_path / "stopped", **options)
    assert everything(tmp_path / "stopped") == everything(tmp_path / "c")


def test_from_scratch_takes_at_most_a_fifth(
    source: Arrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_scratch: None
) -> None:
    measured = tournament.speeds

    def speeds(*given: object) -> tuple[dict, dict]:
        seconds, failed = measured(*given)  # type: ignore[arg-type]
        return {**seconds, "from scratch": 1.2 / training_steps(30)[0]}, failed  # 1.2 s a draw

    monkeypatch.setattr(tournament, "speeds", speeds)
    result = selfsup.compare(source, tasks=(Plain,), minutes=0.25, out=tmp_path / "c", **SMALL)
    assert result.state.plan["scratch"] == {"draws": 2, "seconds": pytest.approx(1.2)}
    assert len(result.state.scores["from scratch"][0]["select"]["values"]) == 2
    assert result.state.plan["planned"]["from scratch"] == pytest.approx(2.4)
    assert sum(result.state.plan["planned"].values()) == pytest.approx(15, abs=0.3)
    assert "2 of 5 draws of training from scratch fit" in " ".join(str(result).split())
    result = selfsup.compare(source, tasks=(Plain,), minutes=0.05, out=tmp_path / "d", **SMALL)
    assert "from scratch" not in result.ranking
    told = " ".join(str(result).split())
    assert re.search(
        "from scratch was left out: one draw of the labels takes 0.02 minutes, .*; give at least 0.1", told
    )


def test_twenty_labels_are_enough_to_say_that_it_cannot_be_told(
    source: Arrays, tmp_path: Path, quick_scratch: None, enough: None
) -> None:
    ids = source.labels.ids.copy()
    chosen = np.concatenate([np.flatnonzero(ids == number)[:2] for number in range(10)])
    ids[np.setdiff1d(np.arange(len(ids)), chosen)] = -1
    few = Arrays(source.x, Labels(ids, source.labels.classes))
    result = selfsup.compare(few, tasks=(Plain,), minutes=0.05, out=tmp_path / "c", **SMALL)
    text = " ".join(str(result).split())
    assert result.state.plan["shots"] == 1
    assert "--shots 3 became 1" in text
    assert "of 20 test samples" in text
    assert "280 of 280 samples without a label are in the pool" in text
    json.dumps(result.as_json(), allow_nan=False)
