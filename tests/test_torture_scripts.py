"""The short forms of the scripts in tests/torture; `make torture` runs the long ones."""

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


@pytest.mark.parametrize(
    "words",
    [
        "torture.kill --times 1 --tasks rotation --no-compare",
        "torture.disk --times 1",
    ],
)
def test_the_script_finds_every_promise_kept(words: str) -> None:
    command = [sys.executable, "-m", *words.split()]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "times a full disk" in done.stdout or "never stopped" in done.stdout


def test_memory_files_and_threads_stay_flat(tmp_path: Path) -> None:
    from torture.long import watch  # hides the GPU when imported

    assert "400 steps, 2 workers" in watch(400, 2, tmp_path / "run")
