"""Files from strangers, mutated at random: each is read, or refused in one line; nothing else may happen.

    cd tests && python -m torture.fuzz --format all --minutes 10
    cd tests && python -m torture.fuzz --format npz --seed 7 --count 1     # one case again

A child process reads, so that a crash, a hang (30 seconds) or memory beyond the bound is seen, counted, and gone on
from. Prints one JSON line a format: executions, minutes, how many were read and refused, and every distinct failure
with the seed that repeats it.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent.parent
MEMORY = 3 << 30  # bytes of address space that a child may take beyond what it has when it starts
HANG = 30  # seconds
ODD_NUMBERS = [0, 1, 2, 3, 7, 8, 127, 128, 255, 256, 2**15, 2**16, 2**31 - 1, 2**31, 2**32, 2**53, 2**63, 2**64 - 1]
ODD_VALUES: list[Any] = [
    None, True, False, -1, 0, 1, 10**6, 10**9, 10**15, 10**40, -(10**30), 0.5, 1e308, -1e308, 1e-320, float("nan"),
    float("inf"), "", "x", "../../etc/passwd", "/dev/zero", "<script>", "[/bold]", "a" * 5000, "\udce9", "\0",
    "os:system", "9", [], [[]], {}, {"a": 1}, [1, 2, 3], ["x"] * 3,
]  # fmt: skip


def mutate_bytes(data: bytes, rng: random.Random, words: tuple[bytes, ...] = ()) -> bytes:
    """Return the bytes with a few random changes: flips, cuts, copies, odd numbers, words of the format."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        at = rng.randrange(len(out) + 1)
        how = rng.randrange(8)
        if how == 0:
            out[at : at + 1] = bytes([rng.randrange(256)])
        elif how == 1 and out:
            out[at % len(out)] ^= 1 << rng.randrange(8)
        elif how == 2:
            del out[at : at + rng.choice((1, 2, 4, 16, 256, len(out)))]
        elif how == 3:
            start = rng.randrange(len(out) + 1)
            out[at:at] = out[start : start + rng.choice((1, 4, 16, 256))]
        elif how in (4, 5):
            number, size = rng.choice(ODD_NUMBERS), rng.choice((1, 2, 4, 8))
            out[at : at + size] = (number % 256**size).to_bytes(size, rng.choice(("little", "big")))
        elif how == 6 and words:
            word = rng.choice(words)
            out[at : at + rng.choice((0, len(word)))] = word
        else:
            del out[at:]
    return bytes(out)


def mutate_json(value: Any, rng: random.Random) -> Any:
    """Return JSON with one to three places changed: another value, a missing key, one more."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = list(_places(value))
        if not places:
            return copy.deepcopy(rng.choice(ODD_VALUES))
        holder, key = rng.choice(places)
        if rng.random() < 0.15:
            del holder[key]
        elif isinstance(holder, dict) and rng.random() < 0.1:
            name = rng.choice(["", "x", "<b>", "step", "kind", "name"])
            holder[name] = copy.deepcopy(rng.choice(ODD_VALUES))
        else:
            holder[key] = copy.deepcopy(rng.choice([*ODD_VALUES, str(holder[key]), [holder[key]]]))  # never in itself
    return value


def _places(value: Any) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from _places(inner)


def dumps(value: Any) -> bytes:
    """Return JSON in which what is no Unicode stays so."""
    return json.dumps(value, ensure_ascii=False).encode(errors="surrogateescape")


def json_text(plain: Any, rng: random.Random) -> bytes:
    """Return mutated JSON: mostly in its structure, sometimes in its bytes, rarely very deep."""
    if rng.random() < 0.01:
        return b"[" * rng.choice((500, 100_000))
    text = dumps(mutate_json(plain, rng))
    return mutate_bytes(text, rng, (b"null", b"1e999", b"[[", b"NaN", b"{}")) if rng.random() < 0.3 else text


def main() -> int:
    """Fuzz one format or all."""
    from torture.formats import FORMATS

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--format", default="all", choices=["all", *FORMATS])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=10**9)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return _child(options.format, options.seed, options.count, options.minutes)
    failed = False
    for name in FORMATS if options.format == "all" else [options.format]:
        found = _format(name, options)
        print(json.dumps(found), flush=True)
        failed |= bool(found["failures"])
    return int(failed)


def _format(name: str, options: argparse.Namespace) -> dict[str, Any]:
    seed, spent = options.seed, 0.0
    total: dict[str, Any] = {"format": name, "executions": 0, "read": 0, "refused": 0, "failures": {}}
    while (left := options.minutes * 60 - spent) > 1 and seed - options.seed < options.count:
        command = [sys.executable, "-m", "torture.fuzz", "--child", "--format", name, "--seed", str(seed)]
        command += ["--minutes", str(left / 60), "--count", str(options.count - (seed - options.seed))]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=TESTS, check=False)
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith(b"{")]
        for line in lines:
            seed = line["seed"] + 1
            for key in ("read", "refused"):
                total[key] = total[key] + line.get(key, 0)
            if "failure" in line:
                if line["failure"] not in total["failures"]:
                    print(name, line["seed"], line["failure"], file=sys.stderr, flush=True)
                total["failures"].setdefault(line["failure"], line["seed"])
        total["executions"] = seed - options.seed
        spent += lines[-1]["seconds"] if lines else left  # without those in which the valid files are made
        if done.returncode:
            how = "hang" if done.returncode == -signal.SIGALRM else f"the process ended with {done.returncode}"
            crashed = next((line["at"] for line in reversed(lines) if "at" in line), seed)
            total["failures"].setdefault(how, crashed)
            seed = crashed + 1
    total["minutes"] = round(spent / 60, 2)
    return total


def _child(name: str, seed: int, count: int, minutes: float) -> int:
    """Run cases one after another; the number of each goes out before it begins, so that a crash has a name."""
    from torture.formats import FORMATS

    out = os.fdopen(os.dup(1), "w")
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere:
        os.environ["SELFSUP_CACHE"] = f"{folder}/cache"
        case: Callable[[random.Random], object] = FORMATS[name](Path(folder))
        for number in range(20):  # imports and compiles before memory is bounded
            with suppress(Exception):
                case(random.Random(number))
        _bound_memory()
        began = time.monotonic()
        for number in range(seed, seed + count):
            seconds = time.monotonic() - began
            if seconds > minutes * 60:
                break
            line: dict[str, Any] = {"seed": number, "seconds": seconds}
            print(json.dumps({"seed": number - 1, "at": number, "seconds": seconds}), file=out, flush=True)
            signal.alarm(HANG)
            with redirect_stdout(nowhere), redirect_stderr(nowhere):
                line |= attempt(case, number)
            signal.alarm(0)
            print(json.dumps(line), file=out, flush=True)
    return 0


def attempt(case: Callable[[random.Random], object], seed: int) -> dict[str, Any]:
    """Run one case; return {"read": 1}, {"refused": 1}, or what went wrong."""
    from selfsup.errors import RunFailed, UserError

    try:
        case(random.Random(seed))
    except (UserError, RunFailed) as error:
        return {"refused": 1} if str(error).strip() else {"failure": "an error without words"}
    except BaseException as error:  # that is what must not happen
        where = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in where if "selfsup" in frame.filename and "torture" not in frame.filename]
        place = own[-1] if own else where[-1]
        said = (str(error).splitlines() or [""])[0][:120]
        return {"failure": f"{type(error).__name__} in {Path(place.filename).name}:{place.lineno}: {said}"}
    return {"read": 1}


def _bound_memory() -> None:
    with open("/proc/self/statm") as file:
        taken = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))


if __name__ == "__main__":
    sys.exit(main())
