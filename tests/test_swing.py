"""`SwingUp`: the physics, what is seen of it, and that others can use it as an environment of Gymnasium."""

import warnings

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_for_agents

from selfsup.control import rooms, swing
from selfsup.control.environments import Environment
from selfsup.data.trajectory.dot import SHAPES
from selfsup.errors import UserError

RNG = np.random.default_rng(0)


def states(count: int) -> np.ndarray:
    low, high = np.array([-0.5, -np.pi, -0.5, -3]), np.array([0.5, np.pi, 0.5, 3])
    return RNG.uniform(low, high, (count, 4))


def energy_and_momentum(states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both of a cart and a uniform rod, by the velocity of the rod's middle."""
    _, angle, speed, spin = states.T
    half, pole = swing.LENGTH / 2, swing.POLE
    right, up = speed + half * spin * np.cos(angle), -half * spin * np.sin(angle)
    moving = (swing.CART * speed**2 + pole * (right**2 + up**2) + pole * swing.LENGTH**2 / 12 * spin**2) / 2
    return moving + pole * swing.GRAVITY * half * np.cos(angle), swing.CART * speed + pole * right


def test_without_force_energy_and_momentum_stay() -> None:
    first = now = states(50)
    for _ in range(25):
        now = swing.move(now, np.zeros(50))
    free = abs(now[:, 0]) < swing.RAIL
    assert free.sum() > 40
    for before, after in zip(energy_and_momentum(first[free]), energy_and_momentum(now[free]), strict=True):
        np.testing.assert_allclose(after, before, atol=0.06)  # of 0.5 joules between up and down
    assert abs(now[:, 1] - first[:, 1]).max() > 1
    pushed = swing.move(first, np.ones(50))
    gained = energy_and_momentum(pushed)[1] - energy_and_momentum(first)[1]
    np.testing.assert_allclose(gained, swing.FORCE / swing.FPS, rtol=0.15)  # force times time


def test_the_cart_stays_on_its_rail() -> None:
    now = states(4)
    for _ in range(60):
        now = swing.move(now, np.ones(4))
    np.testing.assert_array_equal(now[:, 0], swing.RAIL)
    np.testing.assert_array_equal(now[:, 2], 0)
    assert (swing.move(now, -np.ones(4))[:, 0] < swing.RAIL).all()


def test_the_reward_is_one_for_standing_still_above_the_middle() -> None:
    still = np.zeros((3, 4))
    still[1, 1], still[2, 0] = np.pi, 1.8
    found = swing.rewards(still, np.array([0, 0, 0]))
    assert found[0] == 1
    assert found[1] == pytest.approx(0)
    assert 0.5 < found[2] < 0.65
    assert swing.rewards(still[:1], np.array([1.0])) == pytest.approx(0.8)
    every = swing.rewards(states(200), RNG.uniform(-1, 1, 200))
    assert ((every >= 0) & (every <= 1)).all()


def test_the_image_shows_where_cart_and_pole_are() -> None:
    given = states(30)
    images = swing.draw(given)
    np.testing.assert_array_equal(swing.draw(given[7:8])[0], images[7])
    x, angle = given[:, :2].T
    red = images[..., 0].astype(int) - images[..., 2] > 120
    tips = np.stack([x + 0.5 * np.sin(angle), -0.5 * np.cos(angle)], 1)  # and not the end, which the cart hides
    for mask, tip in zip(red, tips, strict=True):
        down, across = np.nonzero(mask)
        middle = (np.array([across.mean(), down.mean()]) + 0.5) / swing.SHARP - swing.HALF
        np.testing.assert_allclose(middle, tip, atol=0.12)
    moved = swing.draw(given + np.array([0.02, 0, 0, 0]))  # a fifth of a pixel: edges are smooth
    assert ((moved != images).any((1, 2, 3))).all()


def test_what_moves_behind_changes_nothing_but_what_is_seen() -> None:
    plain, before, other = (swing.SwingUp(name) for name in swing.NAMES)
    for env in (plain, before, other):
        env.reset(seed=4)
    assert set(before.behind.shapes) <= set(SHAPES[False])
    assert set(other.behind.shapes) <= set(SHAPES[True])
    seen = []
    for _ in range(20):
        found = [env.step(np.array([0.7], np.float32)) for env in (plain, before, other)]
        seen.append([env.render().astype(int) for env in (plain, before, other)])
        assert all((one[0] == found[0][0]).all() and one[1] == found[0][1] for one in found)
    first, last = seen[0], seen[-1]
    assert (abs(first[1] - last[1]).max(2) > 20).mean() > 0.1  # it moves
    pole = (seen[-1][0] == swing.RED[:, 0, 0]).all(2)
    assert pole.any()
    np.testing.assert_array_equal(last[1][pole], last[0][pole])  # and is behind
    assert (before.reset(seed=5)[0] != before.reset(seed=6)[0]).any()
    one = before.behind.colours
    before.reset(seed=7)
    assert (one != before.behind.colours).any()


@pytest.mark.parametrize("make", [swing.SwingUp, rooms.PointRoom])
def test_others_can_use_it(make: type) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(make())
    check_for_agents(make(), warn=False)
    name = f"{make.__name__}:sounds"
    with pytest.raises(UserError, match=f"unknown environment '{name}'"):
        Environment(name)
