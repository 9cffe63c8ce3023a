"""State variables are read off observations: which, by which metric, how split, and beside what."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import selfsup
from selfsup.data.image import Arrays
from selfsup.data.trajectory import About, Episode, InMemory, observations
from selfsup.errors import UserError
from selfsup.evaluation import frame_parts
from selfsup.evaluation.metrics import weighted_f1
from selfsup.evaluation.result import Evaluation
from selfsup.evaluation.ridge import fit_ridge
from selfsup.evaluation.state_parts import StateParts, make_state_parts
from selfsup.evaluation.state_probes import Colours, read_states
from selfsup.nn.heads import accuracy
from selfsup.spec import ImageSpec, TrajectorySpec
from selfsup.task import Loss, Panel, Task
from selfsup.views.trajectory import ObservationViews

RNG = np.random.default_rng(0)
NAMES = ("ball_x", "ball_y", "gate", "distractor_x", "still", "rare")
SIDE = 16


def bouncing(count: int = 12, length: int = 20, states: tuple[str, ...] = NAMES, name: str = "bouncing") -> InMemory:
    """Return episodes of a square somewhere, over a stripe in one of three places, and a grey nobody should read."""
    episodes = []
    for _ in range(count):
        place = RNG.integers(1, 12, (length, 2))
        gate, grey = RNG.integers(0, 3, length), RNG.integers(20, 60, length)
        frames = np.empty((length, SIDE, SIDE, 3), np.uint8)
        for t in range(length):
            frames[t] = grey[t]
            frames[t, :, 13 + gate[t]] = 120
            frames[t, place[t, 1] : place[t, 1] + 3, place[t, 0] : place[t, 0] + 3] = 255
        columns = {
            "ball_x": place[:, 0] + 0.5, "ball_y": place[:, 1] + 0.5, "gate": gate, "distractor_x": grey / 7,
            "still": np.ones(length), "rare": np.arange(length) == 3,
        }  # fmt: skip
        state = np.stack([columns[one] for one in states], 1) if states else np.zeros((length, 0))
        episodes.append(Episode({"camera": frames}, state=state))
    return InMemory(About(("camera",), states=states, fps=5.0), episodes, name)


class Dark(Task):
    """Is an observation shown in negative? Batch: `x` (B, C, H, W) float."""

    kind = "trajectory"

    def __init__(self, encoder):
        super().__init__(encoder)
        self.head = torch.nn.Linear(encoder.dim, 2)

    def samples(self, source):
        return observations(source)

    def views(self, spec):
        return ObservationViews(spec)

    def loss(self, batch):
        label = torch.randint(2, (len(batch["x"]),))
        logits = self.head(self.encoder(batch["x"] * (1 - 2 * label.view(-1, 1, 1, 1))))
        return Loss(torch.nn.functional.cross_entropy(logits, label), {"accuracy": accuracy(logits, label)}, 0.693)

    def panels(self, batch, guess=False):
        return [[Panel(batch["x"][0], "observation")]]


@pytest.fixture
def run(tmp_path: Path) -> selfsup.Run:
    """Return a run on such episodes that hardly trained."""
    return selfsup.pretrain(
        bouncing(), task=Dark, encoder="convnet", steps=2, batch_size=8, stack=1, device="cpu", precision="float32",
        out=tmp_path / "run", quiet=True,
    )  # fmt: skip


def spec(stack: int = 1) -> TrajectorySpec:
    return TrajectorySpec.of(SIDE, 3, stack, ("camera",), states=NAMES, fps=5.0)


def test_what_is_in_the_image_is_read_and_what_is_not_is_not(run: selfsup.Run, tmp_path: Path) -> None:
    result = selfsup.evaluate(run, data=bouncing(20), target="states", shots="10,200,all", draws=2, quiet=True)
    rows = {score.representation for score in result.scores}
    assert rows == {run.task, "untrained", "raw observation", "PCA", "colour histogram"}
    pixels = result.score("raw observation", "linear", None)
    assert pixels.also["ball_x"][0] > 0.8
    assert pixels.also["gate"][0] > 0.9
    assert result.score("colour histogram", "linear", None).also["ball_x"][0] < 0.3
    assert result.score("raw observation", "linear", 10).also["ball_x"][0] < pixels.also["ball_x"][0]
    assert pixels.mean == pytest.approx((pixels.also["ball_x"][0] + pixels.also["ball_y"][0]) / 2)  # no distractor
    assert pixels.also["mean of ball (R²)"][0] == pytest.approx(pixels.mean)
    told = result.about["variables"]
    assert {name: one["metric"] for name, one in told.items()} == {
        "ball_x": "R²", "ball_y": "R²", "gate": "F1", "distractor_x": "R²",
    }  # fmt: skip
    assert 0.1 < told["gate"]["chance"] < 0.4
    text = str(result)
    assert "still never change" in text
    assert "rare nearly always have the same value" in text
    for name in told:
        assert name in text
    assert "helps" in result.verdict
    saved = Evaluation.load(run.folder / "evaluation.json")
    assert str(saved) == text
    plain = json.loads(json.dumps(saved.as_json()))
    del plain["scores"][0]["also"]["gate"]
    (tmp_path / "e.json").write_text(json.dumps(plain))
    with pytest.raises(UserError, match="not a saved evaluation"):
        Evaluation.load(tmp_path / "e.json")
    with pytest.raises(UserError, match="leave --labels out"):
        selfsup.evaluate(run, data=bouncing(3), labels="folders", target="states")
    with pytest.raises(UserError, match="asked for, but there are"):
        selfsup.evaluate(run, data=bouncing(3), target="states", shots="1000")
    page = selfsup.report(run.folder, out=tmp_path / "r.html", quiet=True)
    assert "Each state variable" in Path(page.path).read_text()


def test_no_episode_is_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    source = bouncing(7)
    one = make_state_parts(source, None, spec(), 0)
    assert one.num_folds == 1
    monkeypatch.setattr(frame_parts, "ENOUGH", 50)
    parts = make_state_parts(source, None, spec(), 0)
    assert parts.num_folds == 5
    measured = []
    for fold in range(5):
        train, test = parts.split(fold)
        owners = parts.moments[0].owners
        assert not set(owners[train]) & set(owners[test])
        assert len(train) + len(test) == 7 * 20
        measured += test.tolist()
    assert sorted(measured) == list(range(7 * 20))
    aside = make_state_parts(source, bouncing(3), spec(), 0)
    train, test = aside.split(0)
    assert (len(train), len(test)) == (140, 60)


def test_what_looks_like_something_learned_from_is_not_measured_on() -> None:
    source = bouncing(4)
    again = InMemory(
        About(("camera",), states=NAMES, fps=5.0),
        [Episode({"camera": source.read(k)}, state=source.steps(k).state) for k in (2, 3)]
        + [Episode({"camera": 255 - source.read(0)}, state=source.steps(0).state)],
        "again",
    )
    parts = make_state_parts(source, again, spec(), 0)
    _, test = parts.split(0)
    assert len(test) == 20
    # with a stack of two frames an observation is another one if the frame before it is
    other = [Episode({"camera": source.read(2)[::-1]}, state=source.steps(2).state[::-1])]
    reversed_ = InMemory(About(("camera",), states=NAMES, fps=5.0), other, "reversed")
    assert len(make_state_parts(source, reversed_, spec(), 0).split(0)[1]) == 0
    assert len(make_state_parts(source, reversed_, spec(2), 0).split(0)[1]) == 20


def test_labels_are_those_of_the_rows() -> None:
    """Features that are the state itself are read without error, and those of other rows are not."""
    parts = make_state_parts(bouncing(10), None, spec(), 1)
    train, test = parts.split(0)
    x = np.stack([one.values for one in parts.variables if not one.classes], 1).astype(np.float32)
    gate = next(one for one in parts.variables if one.classes)
    x = np.concatenate([x, np.eye(3, dtype=np.float32)[gate.values]], 1)
    chosen = np.arange(0, len(train), 2)
    found = read_states(x[train], x[test], parts, train, test, chosen)
    assert all(value > 0.98 for value in found.values())
    shuffled = read_states(x[train][::-1].copy(), x[test], parts, train, test, chosen)
    assert all(value < 0.6 for value in shuffled.values())
    one = read_states(x[train], x[test], parts, train, test, chosen[:1].repeat(2))  # a single class, a single value
    assert np.isfinite(list(one.values())).all()


def test_a_penalty_for_each_target_is_that_of_the_target_alone() -> None:
    x = RNG.normal(size=(60, 40)).astype(np.float32)
    y = np.stack([x[:, 0] + 0.01 * RNG.normal(size=60), RNG.normal(size=60)], 1)
    both = fit_ridge(x, y, shared=False)
    for target in range(2):
        alone = fit_ridge(x, y[:, target])
        np.testing.assert_allclose(both.predict(x)[:, target], alone.predict(x), rtol=1e-6, atol=1e-8)
    assert fit_ridge(x, y).penalty != both.penalty


def test_weighted_f1_counts_a_class_as_often_as_it_occurs() -> None:
    truth, guess = np.array([0, 0, 0, 1, 2]), np.array([0, 0, 1, 1, 3])  # F1: 4/5, 2/3, 0; a class 3 nowhere
    assert weighted_f1(truth, guess) == pytest.approx((3 * 0.8 + 2 / 3) / 5)


def test_the_histogram_counts_pixels_by_colour() -> None:
    image = spec(2)
    frame = np.zeros((1, 2, SIDE, SIDE, 3), np.float32)
    frame[0, 1, :4] = 1  # a quarter of the newer frame is white
    x = (frame - np.array(image.mean, np.float32)) / np.array(image.std, np.float32)
    x = torch.from_numpy(x.astype(np.float32)).permute(0, 1, 4, 2, 3).flatten(1, 2)
    counts = Colours(image)(x).reshape(2, 64)
    assert counts[0, 0] == 1
    assert counts[1, [0, 63]].tolist() == [0.75, 0.25]


def parts_of(source: InMemory, other: InMemory | None = None) -> StateParts:
    return make_state_parts(source, other, spec(), 0)


def test_bad_input_is_one_line() -> None:
    with pytest.raises(UserError, match="has no state variables"):
        parts_of(bouncing(3, states=()))
    with pytest.raises(UserError, match="has the states ball_x"):
        parts_of(bouncing(3), bouncing(3, states=("gate",), name="gates"))
    with pytest.raises(UserError, match="no state variable can be measured: still never change"):
        parts_of(bouncing(3, states=("still",)))
    with pytest.raises(UserError, match="only one sample of"):
        parts_of(bouncing(1))
    images = Arrays(RNG.integers(0, 256, (8, SIDE, SIDE, 3)).astype(np.uint8))
    with pytest.raises(UserError, match="is for episodes"):
        make_state_parts(images, None, spec(), 0)
    with pytest.raises(UserError, match="is for encoders of episodes"):
        make_state_parts(bouncing(3), None, ImageSpec.of(SIDE, 3), 0)


def test_observations_whose_state_is_not_known_are_left_out_and_counted() -> None:
    source = bouncing(5)
    source._steps[2].state[:4] = np.nan
    parts = parts_of(source)
    assert len(parts.fold) == 96
    assert any("4 observations cannot be read" in note for note in parts.notes)
