"""Imagined goals: how far from image goals an agent ends that sees latents, the true state, or pixels.

    python benchmarks/rig.py --out /tmp/rig                               # PointRoom: rig, state, pixels
    python benchmarks/rig.py --out /tmp/rig --colours --arms rig cc_rig   # measured in colours that were never seen

A row is printed for each arm and seed, with the CPU minutes of everything. An arm that was stopped is resumed.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import selfsup


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of all arms")
    parser.add_argument("--arms", nargs="+", default=["rig", "state", "pixels"])
    parser.add_argument("--colours", action="store_true", help="PointRoom:colours, measured in :test")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--steps", type=int, default=5_000)
    parser.add_argument("--encoder-steps", type=int, default=1_000)
    parser.add_argument("--episodes", type=int, default=200, help="of random actions")
    args = parser.parse_args()
    env = "PointRoom:colours" if args.colours else "PointRoom"
    for seed in range(args.first, args.first + args.seeds):
        for arm in args.arms:
            began = time.process_time()
            done = selfsup.learn_control(
                arm if arm in ("rig", "cc_rig") else "rig",
                env,
                sees=arm if arm in ("state", "pixels") else "latents",
                test=f"{env}:test" if args.colours else None,
                steps=args.steps,
                encoder_steps=args.encoder_steps,
                episodes=args.episodes,
                seed=seed,
                out=args.out / f"{env.replace(':', '-')}-{arm}-{args.steps}-{seed}",
                quiet=True,
            )
            row = {"arm": arm, "env": env, "test": done.test, "seed": seed, "steps": args.steps}
            row |= {"distance": done.distance, "half": done.half, "random": done.random, "history": done.history}
            print(json.dumps(row | {"cpu_minutes": (time.process_time() - began) / 60}), flush=True)


if __name__ == "__main__":
    main()
