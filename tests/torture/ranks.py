"""Processes of one run under torchrun: writes once, goes on, stops when asked to, survives the loss of one.

cd tests && python -m torture.ranks [--only whole,stopped,preempted,killed,hung,elastic,sharded,nodes]

`elastic` is killed on one, four and two processes, and `sharded` with `--shard-weights`; `nodes` has two launchers, as
on two machines, on the loopback.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from selfsup.train.checkpoint import load_tensors
from support.folders import write_images_and_a_broken_one
from torture import PromiseBroken

TIMEOUT = 15.0
WORKER = """
import os, sys
from pathlib import Path
import selfsup.train.device, selfsup.train.fit
from selfsup.cli import main
from selfsup.tasks.image.rotation import Rotation
selfsup.train.device.TIMEOUT = {timeout}
selfsup.train.fit.SAVE_SECONDS, selfsup.train.fit.SAVE_SHARE = 0.0, 1.0
if {pause}:
    def after_step(task):
        Path("process-" + os.environ["RANK"]).write_text(str(os.getpid()))
        import time; time.sleep({pause})
    Rotation.after_step = after_step
sys.exit(main())
"""
WORDS = (
    "pretrain images --task rotation --encoder convnet --epochs 8 --batch-size 16 --seed 3 --quiet --workers 0 --out"
)

PLAIN = WORDS.replace("convnet", "nature-cnn --optimizer sgd")  # without BatchNorm


class Launch:
    """A run by torchrun of `count` processes on each of `nodes`; `pause` seconds are slept after each step."""

    def __init__(
        self, place: Path, out: str, pause: float = 0.0, count: int = 2, nodes: int = 1, words: str = WORDS
    ) -> None:
        worker = place / "worker.py"
        worker.write_text(WORKER.format(pause=pause, timeout=TIMEOUT))
        self.place, self.out, self.pause, self.world = place, place / out, pause, count * nodes
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count)]
        where = [["--standalone"]]
        if nodes > 1:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = str(free.getsockname()[1])
            where = [
                ["--nnodes", str(nodes), "--node-rank", str(n), "--master-addr", "127.0.0.1", "--master-port", port]
                for n in range(nodes)
            ]
        for path in place.glob("process-*"):
            path.unlink()
        self.said = (place / f"{out}.txt").open("w+")
        self.launchers = [
            subprocess.Popen(
                [*command, *more, worker, *words.split(), out],
                cwd=place, stdout=self.said, stderr=self.said, env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
            for more in where
        ]  # fmt: skip
        self.process = self.launchers[0]

    def at_work(self) -> list[int]:
        """Wait until all processes have made a step of their own, and return their ids by rank."""
        files = [self.place / f"process-{rank}" for rank in range(self.world)]
        while not (self.out / "checkpoint" / "latest.safetensors").exists() or not all(map(Path.exists, files)):
            if self.process.poll() is not None:
                raise PromiseBroken(f"ended before it began: {self.text()}")
            time.sleep(0.05)
        return [int(file.read_text()) for file in files]

    def end(self, seconds: float = 400) -> float:
        """Wait for the end and return the seconds that it took. Nothing may be left running."""
        began = time.monotonic()
        try:
            for launcher in self.launchers:
                launcher.wait(max(1.0, seconds - (time.monotonic() - began)))
        except subprocess.TimeoutExpired:
            for launcher in self.launchers:
                launcher.kill()
            raise PromiseBroken(f"hangs after {seconds} s: {self.text()}") from None
        return time.monotonic() - began

    def text(self) -> str:
        self.said.seek(0)
        return self.said.read()

    def lines(self) -> list[str]:
        return [line for line in self.text().splitlines() if line.startswith("selfsup")]


def expect(holds: bool, what: str, launch: Launch) -> None:
    if not holds:
        raise PromiseBroken(f"{what}: {launch.text()}")


def whole(place: Path) -> None:
    launch = Launch(place, "whole")
    launch.end()
    steps = [json.loads(line)["step"] for line in (launch.out / "metrics.jsonl").read_text().splitlines()]
    expect(launch.process.returncode == 0, "it fails", launch)
    expect(steps == list(range(1, 25)), f"steps are not written once: {steps}", launch)
    expect(len(list(launch.out.glob("events*"))) == 1, "both write events", launch)


def goes_on(place: Path, out: str, what: str) -> None:
    again = Launch(place, out)
    again.end()
    expect(again.process.returncode == 0, f"{what}, it does not go on", again)
    same = [(place / name / "encoder.safetensors").read_bytes() for name in ("whole", out)]
    expect(same[0] == same[1], f"{what}, the weights differ from those of the run never stopped", again)


def stopped(place: Path) -> None:
    launch = Launch(place, "stopped", pause=0.3)
    launch.at_work()
    launch.process.send_signal(signal.SIGTERM)
    took = launch.end()
    line = " ".join(launch.lines())
    expect("by SIGTERM: saved in stopped; run the same command to resume" in line, "SIGTERM is not said", launch)
    expect(len(launch.lines()) == 1, "it is said more than once", launch)
    print(f"SIGTERM: stopped together after {took:.1f} s: {line}")
    goes_on(place, "stopped", "after SIGTERM")


def lost(place: Path, out: str, number: int, limit: float) -> None:
    launch = Launch(place, out, pause=0.3)
    victim = launch.at_work()[1]
    os.kill(victim, number)
    took = launch.end(limit)
    if number == signal.SIGSTOP:
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
    line = " ".join(launch.lines())
    expect("another process of this run ended or hangs" in line and "the checkpoint of step" in line, "unclear", launch)
    print(f"{signal.Signals(number).name} to one process: ended after {took:.1f} s: {line}")
    goes_on(place, out, f"after {signal.Signals(number).name}")


def preempted(place: Path) -> None:
    """SIGUSR1 to one process stops all."""
    launch = Launch(place, "preempted", pause=0.3)
    os.kill(launch.at_work()[1], signal.SIGUSR1)
    took = launch.end()
    line = " ".join(launch.lines())
    expect("by SIGUSR1: saved in preempted; run the same command to resume" in line, "SIGUSR1 is not said", launch)
    print(f"SIGUSR1 to one process: stopped together after {took:.1f} s")
    goes_on(place, "preempted", "after SIGUSR1")


def same(place: Path, out: str, launch: Launch, what: str) -> None:
    expect(all(one.returncode == 0 for one in launch.launchers), f"{what}, it does not go on", launch)
    one, other = (load_tensors(place / name / "encoder.safetensors")[0] for name in ("plain", out))
    far = max(float((other[name] - tensor).abs().max()) for name, tensor in one.items())
    expect(far <= 1e-5, f"{what}, the weights are {far:.1g} from those of one process that was never stopped", launch)
    print(f"{what}: at most {far:.1g} from the weights of one process that was never stopped")


def plain(place: Path) -> None:
    """One process, never stopped."""
    if not (place / "plain").exists():
        launch = Launch(place, "plain", count=1, words=PLAIN)
        launch.end()
        expect(launch.process.returncode == 0, "it fails", launch)


def elastic(place: Path, out: str = "elastic", words: str = PLAIN) -> None:
    plain(place)
    for count in (1, 4, 2):
        launch = Launch(place, out, pause=0.3, count=count, words=words)
        victim = launch.at_work()[-1]
        time.sleep(random.uniform(0, 1))
        os.kill(victim, signal.SIGKILL)
        print(f"SIGKILL to one of {count}: ended after {launch.end(60):.1f} s")
    launch = Launch(place, out, count=1, words=words)
    launch.end()
    same(place, out, launch, "after 1, 4 and 2 processes, each lot killed")


def nodes(place: Path) -> None:
    """Two machines of two processes; one machine is lost, then both are asked to stop by a scheduler."""
    plain(place)
    launch = Launch(place, "nodes", pause=0.3, nodes=2, words=PLAIN)
    victims = launch.at_work()[2:]
    launch.launchers[1].kill()
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    print(f"a machine lost: the other ended after {launch.end(TIMEOUT + 90):.1f} s: {' '.join(launch.lines())}")
    launch = Launch(place, "nodes", pause=0.3, nodes=2, words=PLAIN)
    os.kill(launch.at_work()[3], signal.SIGUSR1)
    print(f"SIGUSR1 to one of four: ended after {launch.end():.1f} s")
    expect("by SIGUSR1: saved in nodes" in launch.text(), "SIGUSR1 is not said", launch)
    launch = Launch(place, "nodes", nodes=2, words=PLAIN)
    launch.end()
    same(place, "nodes", launch, "on two machines of two processes")


CASES: dict[str, Callable[[Path], None]] = {
    "whole": whole,
    "stopped": stopped,
    "preempted": preempted,
    "killed": lambda place: lost(place, "killed", signal.SIGKILL, 60),
    "hung": lambda place: lost(place, "hung", signal.SIGSTOP, TIMEOUT + 90),  # torchrun waits 30 s for the hung one
    "elastic": elastic,
    "sharded": lambda place: elastic(place, "sharded", PLAIN.replace("--quiet", "--quiet --shard-weights")),
    "nodes": nodes,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(CASES))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_images_and_a_broken_one(Path(folder) / "images")
        try:
            for name in asked.only.split(","):
                CASES[name](Path(folder))
                print(f"{name}: kept", flush=True)
        except PromiseBroken as error:
            print(f"BROKEN: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
