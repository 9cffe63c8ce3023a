"""Trajectories: episodes of observations, actions, rewards and states, recorded or generated."""

from selfsup.data.trajectory.dot import Dot
from selfsup.data.trajectory.episodes import Episodes, Steps
from selfsup.data.trajectory.instants import Instants, observations, transitions
from selfsup.data.trajectory.memory import InMemory
from selfsup.data.trajectory.sources import Trajectories
from selfsup.data.trajectory.writing import About, Episode, Shards, write_shards

__all__ = [
    "About", "Dot", "Episode", "Episodes", "InMemory", "Instants", "Shards", "Steps", "Trajectories", "observations",
    "transitions", "write_shards",
]  # fmt: skip
