"""What is particular to the methods on trajectories of one camera: bisimulation, inverse models, ST-DIM."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.encoders import build_encoder
from selfsup.errors import UserError
from selfsup.nn.control import models
from selfsup.spec import ImageSpec, TrajectorySpec
from selfsup.tasks import find_task
from selfsup.tasks.resolve import resolve_task
from selfsup.train.optim import build_optimizer
from selfsup.views.trajectory import TransitionViews
from support.sources import episodes
from support.tasks import first_batch

BOX = TrajectorySpec.of(16, 3, action=("box", 2))
DISCRETE = replace(BOX, action=("discrete", 4))
FEW = torch.arange(8)


def make(name: str, spec: TrajectorySpec = BOX, encoder: str = "convnet", **options: object):
    torch.manual_seed(0)
    return find_task(name)(build_encoder(encoder, spec), **options)


def batch(spec: TrajectorySpec = BOX, size: int = 8, seed: int = 0) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    kind, count = spec.action
    shape = size, spec.stack * spec.channels, spec.size, spec.size
    number, values = torch.randint(max(count, 1), (size,), generator=g), torch.randn(size, count, generator=g)
    return {
        "obs": torch.randn(shape, generator=g),
        "next_obs": torch.randn(shape, generator=g),
        "action": number if kind == "discrete" else values,
        "reward": torch.randn(size, 1, generator=g),
        "noise": torch.randint(2**62, (size,), generator=g),
    }


def test_discrete_actions_are_one_hot_and_those_of_a_box_are_as_they_are() -> None:
    found = models.action_vectors(torch.tensor([2, 0]), ("discrete", 3))
    assert found.tolist() == [[0, 0, 1], [1, 0, 0]]
    assert found.dtype == torch.float32
    values = torch.tensor([[0.5, -2.0]])
    assert torch.equal(models.action_vectors(values, ("box", 2)), values)
    for spec in (BOX, DISCRETE, replace(BOX, action=("none", 0))):
        given = batch(spec)
        for name in ("deepmdp", "dbc"):
            assert make(name, spec).loss(given).value.isfinite()


@pytest.mark.parametrize("name", ["deepmdp", "dbc"])
def test_the_next_latent_is_a_target_without_gradient(name: str) -> None:
    task, given = make(name), batch()
    for key in ("obs", "next_obs"):
        given[key].requires_grad_()
    task.loss(given).value.backward()
    assert given["next_obs"].grad is None
    assert given["obs"].grad is not None
    assert given["obs"].grad.abs().sum() > 0


@pytest.mark.parametrize("form", ["code", "paper"])
def test_the_distance_of_dbc_trains_the_latents_and_no_model(form: str) -> None:
    task, given = make("dbc", form=form, metric_weight=3.0), batch()
    with_distance = _gradients(task, given)
    task.metric_weight = 0.0
    without = _gradients(task, given)
    for key in with_distance.keys() - {"latent.norm.bias"}:  # which moves all latents by the same
        same = torch.allclose(with_distance[key], without[key], atol=1e-6)
        assert same == key.startswith(("dynamics", "reward")), key


def _gradients(task: nn.Module, given: dict[str, Tensor]) -> dict[str, Tensor]:
    task.zero_grad()
    task.loss(given).value.backward()
    return {key: p.grad.clone() for key, p in task.named_parameters() if p.grad is not None}


def test_both_forms_of_dbc_against_a_computation_by_hand() -> None:
    z = torch.tensor([[0.0, 0.5], [2.0, 0.0]])
    reward = torch.tensor([[0.0], [0.5]])
    mean, sigma = torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.ones(2, 2)
    own, wanted = make("dbc", form="paper", gamma=0.5).distances(z, reward, mean, sigma)
    assert own.tolist() == [[2.5], [2.5]]
    assert wanted.tolist() == [[3.0], [3.0]]  # 0.5 + 0.5 · 5
    own, wanted = make("dbc", form="code", gamma=0.5).distances(z, reward, mean, sigma)
    assert own.tolist() == [[1.5, 0.125]] * 2  # |2| - 1/2 and (1/2)² / 2
    assert wanted.tolist() == [[0.125 + 0.5 * 2.5, 0.125 + 0.5 * 3.5]] * 2
    sigma = torch.tensor([[1.0, 1.0], [5.0, 4.0]])
    _, wanted = make("dbc", form="code", gamma=0.5, probabilistic=True).distances(z, reward, mean, sigma)
    torch.testing.assert_close(wanted[0], torch.tensor([0.125 + 0.5 * 5.0, 0.125 + 0.5 * 5.0]))
    _, wanted = make("dbc", form="paper", gamma=0.5).distances(z, reward, mean, sigma)
    torch.testing.assert_close(wanted[0, 0].item(), 0.5 + 0.5 * math.sqrt(50))


def test_the_weight_of_dbc_follows_its_form() -> None:
    source = episodes(4)
    for given, weight in (
        ({}, 0.05),
        ({"form": "paper"}, 0.05 / 2500),
        ({"form": "paper", "latent_dim": 16}, 0.05 / 256),
    ):
        assert resolve_task("dbc", source, given)[2]["metric_weight"] == pytest.approx(weight)
        assert make("dbc", **given).metric_weight == pytest.approx(weight)
    assert resolve_task("dbc", source, {"metric_weight": 0.1})[2]["metric_weight"] == 0.1
    with pytest.raises(UserError, match="paper"):
        make("dbc", form="paper2")


def test_rewards_are_in_units_of_their_std() -> None:
    source, losses = episodes(4), []
    steps, given = source.all_steps(), batch()
    for scale in (1.0, 100.0):
        source.all_steps = lambda scale=scale: steps._replace(reward=steps.reward * scale)
        given["reward"] = batch()["reward"] * scale
        tasks = [make(name, **resolve_task(name, source, {})[2]) for name in ("deepmdp", "dbc")]
        losses += [task.loss(given).value.item() for task in tasks]
    assert losses[:2] == pytest.approx(losses[2:], rel=1e-4)


def test_rewards_that_are_all_the_same_are_refused_by_bisimulation() -> None:
    source = episodes(4)
    steps = source.all_steps()
    for value in (0.0, 2.0):
        source.all_steps = lambda value=value: steps._replace(reward=np.full_like(steps.reward, value))
        with pytest.raises(UserError, match=f"every reward of toy is {value:g}.*inverse"):
            resolve_task("dbc", source, {})
        assert resolve_task("deepmdp", source, {})[2]["reward_scale"] == 1  # transitions remain


class Linear(nn.Module):
    """A linear encoder; with a `scale` of 0 it says the same of everything."""

    def __init__(self, spec: TrajectorySpec, scale: float = 1.0) -> None:
        super().__init__()
        self.spec, self.dim = spec, 32
        self.linear, self.scale = nn.Linear(spec.channels * spec.size**2, 32), scale

    def forward(self, x: Tensor) -> Tensor:
        return 1 + self.scale * self.linear(x.flatten(1))


def test_an_encoder_that_says_nothing_is_penalised_for_the_rewards_alone() -> None:
    """Its transition loss is lower than that of one that says something: so the reward has to keep it from that."""
    given = batch()
    losses = {}
    for scale in (0.0, 1.0):
        torch.manual_seed(0)
        task = find_task("deepmdp")(Linear(BOX, scale), latent_dim=8)
        optimizer = build_optimizer(task, "adamw", 3e-3, 0.0)
        for _ in range(150):
            optimizer.zero_grad()
            loss = task.loss(given)
            loss.value.backward()
            optimizer.step()
        losses[scale] = loss
    assert losses[0.0].metrics["std"] == 0
    assert losses[1.0].metrics["std"] > 0.1
    assert losses[1.0].metrics["reward"] > 0.9
    nothing = torch.tensor(1.0) - losses[0.0].metrics["reward"]  # actions alone tell something of 8 rewards
    assert losses[0.0].value > losses[1.0].value + 0.1 * nothing


def test_weights_of_deepmdp_leave_out_a_model() -> None:
    given = batch()
    rewards, transitions = make("deepmdp", transition_weight=0.0), make("deepmdp", reward_weight=0.0)
    assert rewards.dynamics is None
    assert transitions.reward is None
    both, parts = make("deepmdp"), []
    for task, child in ((rewards, "reward"), (transitions, "dynamics")):
        getattr(task, child).load_state_dict(getattr(both, child).state_dict())
        task.latent.load_state_dict(both.latent.state_dict())
        parts.append(task.loss(given).value)
    torch.testing.assert_close(both.loss(given).value, sum(parts))
    given["reward"] = torch.full((8, 1), torch.nan)
    assert transitions.loss(given).value.isfinite()  # it needs no rewards
    assert all(not isinstance(p.content, str) for row in transitions.panels(given, guess=True) for p in row)
    with pytest.raises(UserError, match="nothing to learn"):
        make("deepmdp", transition_weight=0.0, reward_weight=0.0)


def test_the_penalty_is_of_slopes_above_one() -> None:
    z, action, key = torch.randn(6, 4), torch.zeros(6, 0), torch.arange(6)
    for slope, penalty in ((0.5, 0.0), (1.0, 0.0), (3.0, 4.0)):
        model = nn.Linear(4, 4, bias=False)
        with torch.no_grad():
            model.weight.copy_(slope * torch.eye(4))
        assert models.gradient_penalty(model, z, action, key).item() == pytest.approx(penalty, abs=1e-4)
    task = make("deepmdp", lipschitz=10.0)
    loss = task.loss(batch())
    plain = make("deepmdp").loss(batch())
    torch.testing.assert_close(loss.value, plain.value + 10 * loss.metrics["penalty"])


def test_the_predicted_std_is_bounded_and_its_loss_that_of_a_normal() -> None:
    dynamics = models.Dynamics(3, 2, 8, probabilistic=True)
    mean, sigma = dynamics(1e4 * torch.randn(50, 3), torch.randn(50, 2))
    assert (sigma >= 1e-4).all()
    assert (sigma <= 10).all()
    target = torch.randn(50, 3)
    wanted = -torch.distributions.Normal(mean, sigma).log_prob(target).mean() - 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(models.normal_loss(mean, sigma, target), wanted)
    for name in ("deepmdp", "dbc"):
        assert make(name, probabilistic=True).loss(batch()).value.isfinite()


def test_inverse_is_at_its_chance_value_when_it_says_nothing() -> None:
    for spec, chance in ((DISCRETE, math.log(4)), (BOX, 1.0)):
        task, given = make("inverse", spec), batch(spec)
        nn.init.zeros_(task.head[-1].weight)
        nn.init.zeros_(task.head[-1].bias)
        if spec is BOX:
            given["action"] = given["action"] - given["action"].mean(0)
        loss = task.loss(given)
        assert loss.chance == pytest.approx(chance)
        assert loss.value.item() == pytest.approx(chance, rel=1e-4)
    given["action"] = torch.tensor([1e5, 1.0]) * given["action"] * torch.tensor([1.0, 0.0])
    assert task.loss(given).value.item() == pytest.approx(1.0, rel=1e-4)  # whatever its units, and constants apart
    with pytest.raises(UserError, match="no actions"):
        make("inverse", replace(BOX, action=("none", 0)))


def test_inverse_learns_actions_and_cannot_learn_those_of_other_steps() -> None:
    """Negative control: what it explains of held-out steps, of the actions that were taken and of shuffled ones."""
    source, found = episodes(64), {}
    for what in ("taken", "shuffled"):
        torch.manual_seed(0)
        task = find_task("inverse")(Linear(source.spec(size=16)), hidden_dim=64)
        whole = first_batch_of(task, source, 640)
        if what == "shuffled":
            whole["action"] = whole["action"][torch.randperm(640)]
        learn, held = ({key: x[part] for key, x in whole.items()} for part in (slice(512), slice(512, 640)))
        optimizer = build_optimizer(task, "adamw", 1e-3, 0.05)
        for step in range(60):
            optimizer.zero_grad()
            rows = torch.arange(128) + step % 4 * 128
            task.loss({key: x[rows] for key, x in learn.items()}).value.backward()
            optimizer.step()
        with torch.no_grad():
            found[what] = task.eval().loss(held).value.item()
    assert found["taken"] < 0.8
    assert found["shuffled"] > 1.0


def first_batch_of(task, source, size: int) -> dict[str, Tensor]:
    views, mine = task.views(source.spec(size=16)).for_device("cpu"), task.samples(source)
    rows = np.random.default_rng(0).permutation(len(mine))[:size]
    return dict(views.finish(views.fetch(mine, rows, 0, 0).batch))


def test_logits_of_stdim_against_a_loop_over_places() -> None:
    task, given = make("stdim"), batch()
    total, encoder = 0.0, task.encoder
    features, maps = encoder.with_maps(torch.cat([given["obs"], given["next_obs"]]))
    before, after = maps.chunk(2)
    for y in range(maps.shape[2]):
        for x in range(maps.shape[3]):
            keys = before[:, :, y, x]
            for query in (task.from_global(features[8:]), task.from_local(after[:, :, y, x])):
                total = total + F.cross_entropy(query @ keys.T, FEW)
    loss = task.loss(given)
    torch.testing.assert_close(loss.value, total / (maps.shape[2] * maps.shape[3]), rtol=1e-4, atol=1e-4)
    for layer in (task.from_global, task.from_local):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    assert task.loss(given).value.item() == pytest.approx(2 * math.log(8), rel=1e-4)
    big = batch(size=64)
    assert task.loss(big).chance == pytest.approx(8.318, abs=1e-3)


def test_stdim_pairs_an_observation_with_the_one_before_it_and_never_with_the_last_one() -> None:
    source = episodes(6)
    task = find_task("stdim")(build_encoder("convnet", source.spec(size=16)))
    steps = task.samples(source)
    assert len(steps) == 6 * 11
    assert (steps.stops - steps.starts == 2).all()
    given = first_batch(task, source, 16)
    assert (given["time"] < source.extent(0) / source.fps - 1.5 / source.fps).all()


def test_stdim_takes_convolutional_encoders_and_refuses_others() -> None:
    for name in ("convnet", "resnet10t", "nature-cnn"):
        task = find_task("stdim")(build_encoder(name, TrajectorySpec.of(16, 1, 2)))
        assert task.encoder.training
        given = batch(TrajectorySpec.of(16, 1, 2, action=("box", 2)))
        assert task.loss(given).value.isfinite()
        assert len(task.panels(given, guess=True)) == 8
    for name in ("vit-mini", "mlp"):
        with pytest.raises(UserError, match="convolutional"):
            find_task("stdim")(build_encoder(name, TrajectorySpec.of(16)))


@pytest.mark.parametrize(
    ("size", "maps", "dim"), [(16, (32, 4, 4), 128), (64, (64, 6, 6), 512), (160, (128, 8, 8), 256)]
)
def test_nature_cnn_has_the_layers_of_its_size(size: int, maps: tuple[int, ...], dim: int) -> None:
    encoder = build_encoder("nature-cnn", ImageSpec.of(size, 1))
    x = torch.randn(2, 1, size, size)
    features, middle = encoder.with_maps(x)
    assert tuple(middle.shape[1:]) == maps
    assert features.shape == (2, dim)
    torch.testing.assert_close(features, encoder(x))
    torch.testing.assert_close(features, encoder.linear(encoder.maps(x).flatten(1)))
    with pytest.raises(UserError, match="--size"):
        build_encoder("nature-cnn", ImageSpec.of(7, 1))


def test_place_cnn_says_where_a_thing_is_before_it_has_learned_anything() -> None:
    places = torch.rand(200, 2, generator=torch.Generator().manual_seed(0)) * 24 + 4
    grid = torch.arange(32.0)
    x = ((grid[:, None] - places[:, :1, None]) ** 2 + (grid - places[:, 1:, None]) ** 2 < 9).float()[:, None]
    errors = {}
    for name in ("place-cnn", "nature-cnn"):
        torch.manual_seed(0)
        encoder = build_encoder(name, ImageSpec.of(32, 1))
        with torch.no_grad():
            z = torch.cat([encoder(x)[:, :40], torch.ones(200, 1)], 1)
        errors[name] = (z @ torch.linalg.lstsq(z[:150], places[:150]).solution - places)[150:].abs().mean()
    assert errors["place-cnn"] < 1
    assert errors["place-cnn"] < 0.5 * errors["nature-cnn"]
    assert encoder.maps(x[:2]).shape[0] == 2
    with pytest.raises(UserError, match="--size"):
        build_encoder("place-cnn", ImageSpec.of(7, 1))


@pytest.mark.parametrize("name", ["convnet", "place-cnn", "resnet10t"])
def test_maps_come_with_the_same_representation(name: str) -> None:
    encoder = build_encoder(name, ImageSpec.of(32, 3)).eval()
    x = torch.randn(2, 3, 32, 32)
    features, maps = encoder.with_maps(x)
    torch.testing.assert_close(features, encoder(x))
    assert maps.ndim == 4
    assert maps.shape[2] >= encoder.maps(x).shape[2]


def test_the_loss_of_curl_by_hand_and_its_key_encoder() -> None:
    spec = replace(BOX, stack=3)
    task, given = make("curl", spec), batch(spec)
    given["positive"] = given["obs"].flip(3)
    key = F.normalize(torch.randn(8, 50), dim=1)
    task.momentum_latent.forward = lambda x: key
    task.bilinear.data = torch.randn(50, 50)
    loss = task.loss(given)
    logits = task.latent(given["obs"]) @ task.bilinear @ key.T
    logits = logits - logits.amax(1, keepdim=True)
    torch.testing.assert_close(loss.value, F.cross_entropy(logits, FEW), rtol=1e-4, atol=1e-4)
    nn.init.zeros_(task.bilinear)
    assert task.loss(given).value.item() == pytest.approx(loss.chance) == pytest.approx(math.log(8))
    before = [parameter.clone() for parameter in task.momentum_latent.parameters()]
    with torch.no_grad():
        for parameter in task.latent.parameters():
            parameter += 1
    task.after_step()
    for old, new in zip(before, task.momentum_latent.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.05)
        assert not new.requires_grad


def test_a_crop_of_curl_is_one_shift_of_all_frames_and_keeps_the_scale() -> None:
    source = episodes(2)
    spec = source.spec(size=32, stack=3)
    task = make("curl", spec)
    steps = task.samples(source)
    views = task.views(spec)
    given = views.fetch(steps, np.arange(len(steps)), 0, 0).batch
    plain = TransitionViews(spec).fetch(steps, np.arange(len(steps)), 0, 0).batch
    shifts = {key: [_shift(x, y) for x, y in zip(given[key], plain["obs"], strict=True)] for key in ("obs", "positive")}
    nexts = [_shift(x, y) for x, y in zip(given["next_obs"], plain["next_obs"], strict=True)]
    assert nexts == shifts["obs"]
    assert sum(a != b for a, b in zip(shifts["obs"], shifts["positive"], strict=True)) > 0.8 * len(steps)
    every = np.array([*shifts["obs"], *shifts["positive"]])
    assert every.min() == -3  # a tenth of 32 pixels
    assert every.max() == 3
    same = views.fetch(steps, np.arange(len(steps)), 0, 1).batch["obs"]
    assert not torch.equal(same, given["obs"])


def _shift(seen: Tensor, whole: Tensor) -> tuple[int, int]:
    """Return by how much all frames of an observation (9, 32, 32) are shifted over black."""
    padded = F.pad(whole, (3, 3, 3, 3))
    places = [(y, x) for y in range(7) for x in range(7) if torch.equal(padded[:, y : y + 32, x : x + 32], seen)]
    assert len(places) == 1
    return places[0][0] - 3, places[0][1] - 3
