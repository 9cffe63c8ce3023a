"""Files that are whole whatever happens, and folders that belong to one process at a time."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import selfsup
from selfsup.base.writing import only_here, part_name, whole_file, write_atomically
from selfsup.errors import RunFailed, UserError

HOLD = """
import sys, time
from pathlib import Path
from selfsup.base.writing import only_here, whole_file
with {what}(Path(sys.argv[1])) as held:
    if held: held.write(b"half"); held.flush()
    print("held", flush=True)
    time.sleep(60)
"""


def held(path: Path, what: str) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", HOLD.format(what=what), path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_a_folder_is_refused_to_a_second_process_until_its_owner_dies(tmp_path: Path) -> None:
    owner = held(tmp_path / "run", "only_here")
    with pytest.raises(UserError, match=rf"run is in use by process {owner.pid} on .*; wait for it, or give another"):
        selfsup.pretrain("digits", encoder="convnet", steps=1, out=tmp_path / "run", quiet=True)
    with pytest.raises(UserError, match=rf"run is in use by process {owner.pid}"):
        selfsup.compare("digits", tasks="rotation", out=tmp_path / "run", quiet=True)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    run = selfsup.pretrain("digits", encoder="convnet", steps=1, batch_size=8, out=tmp_path / "run", quiet=True)
    assert run.done
    assert not (run.folder / ".lock").exists()


def test_a_lock_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), only_here(tmp_path / "new"):
        raise ZeroDivisionError
    assert not (tmp_path / "new").exists(), "made here, and nothing came into it"
    (tmp_path / "old").mkdir()
    with only_here(tmp_path / "old"):
        pass
    assert list((tmp_path / "old").iterdir()) == []


def test_what_a_killed_writer_left_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    owner = held(path, "whole_file")
    with pytest.raises(RunFailed, match=r"cannot write .*file: another process is writing it"):
        write_atomically(path, b"new")
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert path.read_bytes() == b"old"
    assert (tmp_path / part_name("file")).read_bytes() == b"half"
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


def test_a_writer_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", b"old")

    def fail() -> None:
        with whole_file(tmp_path / "file") as file:
            file.write(b"new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (tmp_path / "file").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_run_killed_before_its_recipe_starts_again(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for name in (".lock", ".recipe.json.part"):
        (tmp_path / "run" / name).write_bytes(b"{")
    run = selfsup.pretrain("digits", encoder="convnet", steps=1, batch_size=8, out=tmp_path / "run", quiet=True)
    assert run.done
    assert {path.name for path in run.folder.iterdir() if path.name.startswith(".")} == set()
