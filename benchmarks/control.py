"""Agents: what they reach through encoders that learn by a task, beside what they reach without.

    python benchmarks/control.py swing --seeds 3 --out swing.jsonl             # curl, crops alone, ... on SwingUp
    python benchmarks/control.py background --seeds 3 --out background.jsonl   # deepmdp, dbc, ... behind unseen things
    python benchmarks/control.py goals --out goals.jsonl                       # rig on PointRoom
    python benchmarks/control.py colours --out colours.jsonl                   # cc_rig in colours that were never seen
    python benchmarks/control.py offline --encoder-steps 500                   # what curl knows of the state
    python benchmarks/control.py speed                                         # updates a second, beside SB3 alone
    python benchmarks/control.py swing --quick                                 # whether it runs

A line of JSON is written for each arm and seed, with the CPU minutes of everything, and then a table of the IQM over
seeds with its bootstrap interval. A run that was stopped is resumed: the runs lie in --runs. A run of 15,000 steps of
64 transitions takes about 15 to 30 CPU minutes on one core (an auto-encoder an hour), with the true state about 6.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
import torch.nn.functional as F
from stable_baselines3 import SAC
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor

import selfsup
from selfsup.control import rounds
from selfsup.control.agents import quiet_logger
from selfsup.control.asked import asked_of
from selfsup.control.earning import NETWORKS, Earning
from selfsup.data.trajectory import Trajectories, transitions
from selfsup.encoders import build_encoder
from selfsup.evaluation.draws import crossed, iqm
from selfsup.nn.control.latent import Latent
from selfsup.nn.image.decoder import Decoder
from selfsup.task import Batch, Encoder, Loss, Task
from selfsup.views.image import Crop
from selfsup.views.trajectory import TransitionViews

AUTO = {"own_reward": True, "beta": 0.0, "encoder": "nature-cnn"}
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "curl, jointly": ("curl", {"joint": True}),
    "curl, apart": ("curl", {}),
    "crops alone": ("curl", {"sees": "crops"}),
    "pixels": ("curl", {"sees": "pixels"}),
    "deepmdp, jointly": ("deepmdp", {"joint": True}),
    "deepmdp, apart": ("deepmdp", {}),
    "dbc, jointly": ("dbc", {"joint": True}),
    "dbc, apart": ("dbc", {}),
    "auto-encoder, 16 units": ("rig", {**AUTO, "latent_dim": 16}),
    "auto-encoder, 64 units": ("rig", {**AUTO, "latent_dim": 64}),
    "untrained encoder": ("curl", {"sees": "random"}),
    "true state": ("curl", {"sees": "state"}),
    "rig": ("rig", {}),
    "rig, nature-cnn": ("rig", {"encoder": "nature-cnn"}),
    "cc_rig": ("cc_rig", {}),
    "goals of states": ("rig", {"sees": "state"}),
    "goals of pixels": ("rig", {"sees": "pixels"}),
}
SWING = [name for name in ARMS if name.startswith(("curl", "crops", "pixels", "untrained", "true", "auto-encoder, 64"))]
SUITES: dict[str, tuple[str, str | None, list[str]]] = {  # environment, test, arms
    "swing": ("SwingUp", None, SWING),
    "background": ("SwingUp:background", "SwingUp:background:test", list(ARMS)[:12]),
    "goals": ("PointRoom", None, ["rig", "rig, nature-cnn", "goals of states", "goals of pixels"]),
    "colours": ("PointRoom:colours", "PointRoom:colours:test", ["rig", "cc_rig"]),
}
QUICK = {"steps": 40, "episodes": 2, "encoder_steps": 10}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", choices=[*SUITES, "offline", "speed"])
    parser.add_argument("--arms", default="", help="beginnings of names, separated by ;")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=15_000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--encoder-steps", type=int, default=1_000, help="of goals, and offline")
    parser.add_argument("--runs", type=Path, default=Path("control"), help="folder of all runs")
    parser.add_argument("--out", type=Path, help="JSON lines")
    parser.add_argument("--quick", action="store_true", help="a few steps, whose numbers say nothing")
    args = parser.parse_args()
    if args.suite == "speed":
        speed(args.batch_size, 10 if args.quick else 60)
        return
    if args.suite == "offline":
        offline(args)
        return
    env, test, arms = SUITES[args.suite]
    wanted = [name for name in arms if any(name.startswith(part) for part in args.arms.split(";"))]
    given = {"steps": args.steps, "batch_size": args.batch_size, "encoder_steps": args.encoder_steps}
    if args.quick:
        given |= QUICK
        rounds.TRIED = rounds.LOOKED = rounds.FILMED = 1
    rows: list[dict[str, Any]] = []
    for seed in range(args.first_seed, args.first_seed + (1 if args.quick else args.seeds)):
        for name in wanted:
            task, options = ARMS[name]
            began, place = time.process_time(), f"{args.suite}-{name.replace(', ', '-').replace(' ', '-')}"
            done = selfsup.learn_control(
                task, env, test=test, seed=seed, quiet=True, **given, **options,
                out=args.runs / f"{place}-{given['steps']}-{seed}",
            )  # fmt: skip
            row = {"suite": args.suite, "arm": name, "seed": seed, **given, "unit": done.unit}
            row |= {"rows": [vars(one) for one in done.rows], "history": done.history[0]}
            row |= {"cpu_minutes": round((time.process_time() - began) / 60, 2)}
            rows.append(row)
            print(json.dumps(row), flush=True)
            if args.out:
                with args.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
    print(table(rows))


def table(rows: list[dict[str, Any]]) -> str:
    """Return a table in Markdown: the IQM over seeds for each arm and environment, and CPU minutes a run."""
    lines = [
        "| arm | measured in | policy | IQM over seeds | 95% interval | each seed | CPU minutes |",
        "|---" * 7 + "|",
    ]
    for arm in dict.fromkeys(row["arm"] for row in rows):
        mine = [row for row in rows if row["arm"] == arm]
        minutes = np.mean([row["cpu_minutes"] for row in mine])
        for place, one in enumerate(mine[0]["rows"]):
            values = [row["rows"][place]["mean"] for row in mine]
            mean, low, high = iqm(values) if len(values) > 1 else (values[0], float("nan"), float("nan"))
            each = " / ".join(f"{value:.3g}" for value in values)
            told = f"{mean:.3g} | {low:.3g} to {high:.3g} | {each} | {minutes:.1f}"
            lines.append(f"| {arm} | {one['env']} | {one['policy']} | {told} |")
    return "\n".join(lines)


class CropAutoEncoder(Task):
    """Reconstruct a crop of an observation from its latent: CURL's views and latent, with another loss.

    Read before the latent, at the encoder, which has more numbers: a run can be opened only with a task of selfsup.
    """

    paper, section, kind = "none", "control: crops", "trajectory"
    default_encoder = "nature-cnn"
    data_defaults = {"stack": 3}  # noqa: RUF012

    def __init__(self, encoder: Encoder, *, latent_dim: int = 50, shift: float = 0.1) -> None:
        super().__init__(encoder)
        self.shift, self.latent = shift, Latent(encoder, latent_dim)
        self.decoder = Decoder(latent_dim, encoder.spec.image, width=8)

    def samples(self, source: Any) -> Any:
        return transitions(source)

    def views(self, spec: Any) -> TransitionViews:
        return TransitionViews(spec, crop=Crop(spec.size, pad=round(self.shift * spec.size)))

    def loss(self, batch: Batch) -> Loss:
        x = batch["obs"]
        return Loss(F.mse_loss(self.decoder(self.latent(x)), x))

    def panels(self, batch: Batch, guess: bool = False) -> list[Any]:
        return []


def offline(args: argparse.Namespace) -> None:
    """Print R² of the state, averaged over its variables, after learning from the same episodes of a random policy.

    `background` is tested behind things that were never seen. Intervals are over seeds and draws, crossed; a seed is
    other episodes and other weights.
    """
    seeds, shots = (1, "20") if args.quick else (args.seeds, "50,200")
    print(f"R², {seeds} seeds × 5 draws, {args.encoder_steps} steps of 128\n| environment | arm | " + shots + " |")
    for env, tested in (("SwingUp", "SwingUp"), ("SwingUp:background", "SwingUp:background:test")):
        found: dict[tuple[str, int | None], list[list[float]]] = {}
        for seed in range(seeds):
            parts = []
            for name, episodes, first in ((env, 40, 2 * seed), (tested, 20, 2 * seed + 1)):
                folder = args.runs / f"{name.replace(':', '-')}-{first}"
                selfsup.record(
                    name, out=folder, episodes=4 if args.quick else episodes, size=48, seed=first, quiet=True
                )
                parts.append(folder)
            for arm, task in (("curl", "curl"), ("auto-encoder of crops", CropAutoEncoder)):
                run: Any = selfsup.pretrain(
                    str(parts[0]), task=task, encoder="nature-cnn", size=48, stack=3, seed=seed, batch_size=128,
                    steps=args.encoder_steps, out=args.runs / f"{parts[0].name}-{arm.replace(' ', '-')}", quiet=True,
                )  # fmt: skip
                told: Any = selfsup.evaluate(
                    run, data=str(parts[0]), test=str(parts[1]), target="states", shots=shots, quiet=True
                )
                for score in told.scores:
                    name = arm if score.representation in (run.task, "CropAutoEncoder") else score.representation
                    if arm == "curl" or name == arm:
                        found.setdefault((f"{name}, {score.protocol}", score.shots), []).append(list(score.values))
        for name in dict.fromkeys(name for name, _ in found):
            values = [np.array(each) for (own, _), each in found.items() if own == name]
            cells = [f"{x.mean():.2f} ±{crossed(x):.2f}" for x in values]
            print(f"| {env} | {name} | " + " | ".join(cells) + " |", flush=True)


class Trained(BaseFeaturesExtractor):
    """The same encoder in Stable-Baselines3's own policy, one for the actor and one for the critic, as it has them."""

    def __init__(self, observation_space: Any, spec: Any) -> None:
        super().__init__(observation_space, 50)
        self.latent = Latent(build_encoder("nature-cnn", spec), 50)

    def forward(self, observations: Tensor) -> Tensor:
        return self.latent(observations)


class Shown(gymnasium.Env):
    """What an agent of Stable-Baselines3 sees: three frames of 48 × 48."""

    observation_space = gymnasium.spaces.Box(0, 255, (9, 48, 48), np.uint8)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)


def speed(batch_size: int, updates: int) -> None:
    """Print updates a CPU second, of one thread, beside those of Stable-Baselines3's SAC with the same encoder."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "swing"
        selfsup.record("SwingUp", out=folder, episodes=8, size=48, quiet=True)
        source = Trajectories(folder)
        alone = _rate(_alone(source.spec(size=48, stack=3), batch_size), updates)
        print(f"{'Stable-Baselines3, pixels':28} {alone:6.1f} updates/s")
        for name in SUITES["background"][2]:
            task, options = ARMS[name]
            own = {key: value for key, value in options.items() if key in ("beta", "latent_dim")}
            given = {"sees": "latents", "joint": False} | {k: v for k, v in options.items() if k in ("sees", "joint")}
            asked = asked_of(
                "SwingUp", task, own, test="SwingUp", goals=False, steps=15_000, episodes=8, seed=0, agent="sac",
                size=48, stack=3, encoder="nature-cnn", encoder_steps=1, batch_size=batch_size, **given,
            )  # fmt: skip
            pupil = Earning(asked, Path(scratch), source, Shown.action_space, True)
            pupil.add(source, range(len(source)))
            ours = _rate(lambda first, until, pupil=pupil: list(pupil.updates(first, until)), updates)
            print(f"{name:28} {ours:6.1f} updates/s, {ours / alone:.2f} of it")


def _alone(spec: Any, batch_size: int) -> Callable[[int, int], Any]:
    kwargs = {
        "features_extractor_class": Trained,
        "features_extractor_kwargs": {"spec": spec},
        **NETWORKS["policy_kwargs"],
    }
    agent = SAC("CnnPolicy", Shown(), policy_kwargs=kwargs, buffer_size=2_000, device="cpu")
    agent.set_logger(quiet_logger())
    rng = np.random.default_rng(0)
    for _ in range(2_000):
        seen = rng.integers(0, 255, (2, 1, 9, 48, 48), np.uint8)
        agent.replay_buffer.add(*seen, rng.uniform(-1, 1, (1, 1)), rng.uniform(size=1), np.zeros(1), [{}])
    return lambda first, until: agent.train(until - first, batch_size)


def _rate(learn: Callable[[int, int], Any], updates: int) -> float:
    """Return updates a CPU second, of a few that come after the first ones."""
    learn(0, 5)
    began = time.process_time()
    learn(5, 5 + updates)
    return updates / (time.process_time() - began)


if __name__ == "__main__":
    main()
