"""The short forms of the scripts in tests/torture; `make torture` runs the long ones."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

TORTURE = Path(__file__).parent / "torture"


@pytest.mark.parametrize(
    "words",
    [
        "kill.py --times 3 --tasks rotation --no-compare",
        "disk.py --times 2",
    ],
)
def test_the_script_finds_every_promise_kept(words: str) -> None:
    name, *options = words.split()
    done = subprocess.run([sys.executable, TORTURE / name, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "times a full disk" in done.stdout or "never stopped" in done.stdout


def test_memory_files_and_threads_stay_flat(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("torture_long", TORTURE / "long.py")
    long = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(long)
    assert "400 steps, 2 workers" in long.watch(400, 2, tmp_path / "run")
