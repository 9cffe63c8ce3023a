"""The short forms of the scripts in tests/torture; `make torture` runs the long ones."""

import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent


def test_the_script_finds_every_promise_kept() -> None:
    """Of those that kill, tests/test_resume.py and tests/test_compare.py have the short form."""
    command = [sys.executable, "-m", "torture.disk", "--times", "1"]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "times a full disk" in done.stdout


def test_memory_files_and_threads_stay_flat(tmp_path: Path) -> None:
    from torture.long import watch  # hides the GPU when imported

    assert "400 steps, 2 workers" in watch(400, 2, tmp_path / "run")
