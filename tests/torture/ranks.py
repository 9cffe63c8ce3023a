"""Two processes of one run under torchrun: writes once, goes on, stops when asked to, survives the loss of one.

cd tests && python -m torture.ranks [--only whole,stopped,killed,hung]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

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


class Launch:
    """A run by torchrun of two processes, on a free port; `pause` seconds are slept after each step."""

    def __init__(self, place: Path, out: str, pause: float = 0.0) -> None:
        worker = place / "worker.py"
        worker.write_text(WORKER.format(pause=pause, timeout=TIMEOUT))
        self.place, self.out, self.pause = place, place / out, pause
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
        self.said = (place / f"{out}.txt").open("w+")
        self.process = subprocess.Popen(
            [*command, worker, *WORDS.split(), out],
            cwd=place, stdout=self.said, stderr=self.said, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def at_work(self) -> list[int]:
        """Wait until a checkpoint has been written, and return the process ids by rank."""
        while not (self.out / "checkpoint" / "latest.safetensors").exists():
            if self.process.poll() is not None:
                raise PromiseBroken(f"ended before it began: {self.text()}")
            time.sleep(0.05)
        return [int((self.place / f"process-{rank}").read_text()) for rank in range(2)]

    def end(self, seconds: float = 400) -> float:
        """Wait for the end and return the seconds that it took. Nothing may be left running."""
        began = time.monotonic()
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
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


CASES: dict[str, Callable[[Path], None]] = {
    "whole": whole,
    "stopped": stopped,
    "killed": lambda place: lost(place, "killed", signal.SIGKILL, 60),
    "hung": lambda place: lost(place, "hung", signal.SIGSTOP, TIMEOUT + 90),  # torchrun waits 30 s for the hung one
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
