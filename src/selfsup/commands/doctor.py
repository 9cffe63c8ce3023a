"""`doctor`: what a bug report should say about this machine and installation. Imports torch only when it is called."""

from __future__ import annotations

import importlib.metadata as metadata
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfsup.base.cache import cache_folder
from selfsup.base.printing import Printable
from selfsup.errors import RunFailed

GIB = 2**30
LITTLE = 2 * GIB  # bytes free of a disk, below which it is said
VARIABLES = ("OMP_", "MKL_", "ATEN_", "ONEDNN_", "CUDA_", "PYTORCH_", "SELFSUP_", "HF_HOME", "HF_HUB_", "TMPDIR")


@dataclass(frozen=True, repr=False)
class Health(Printable):
    """Lines about this machine and installation by name, what is missing of each extra, and what should be mended."""

    about: dict[str, str]
    extras: dict[str, tuple[str, ...]]  # the packages that are missing, by extra
    problems: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the same as plain values."""
        extras = {name: list(missing) for name, missing in self.extras.items()}
        return {"about": self.about, "missing": extras, "problems": list(self.problems)}

    def __rich__(self) -> str:
        width = max(map(len, [*self.about, *self.extras])) + 2
        lines = [f"{name:{width}}{text}" for name, text in self.about.items()]
        lines += ["", "extras"]
        for name, missing in self.extras.items():
            remedy = f"no {', '.join(missing)} (pip install 'selfsup[{name}]')" if missing else "installed"
            lines.append(f"{name:{width}}{remedy}")
        found = [f"- {problem}" for problem in self.problems] or ["nothing is wrong"]
        return "\n".join([*lines, "", *found])


def doctor() -> Health:
    """Describe this machine and installation, for a bug report.

    Versions, processor, threads, device and precision, the extras and what they lack, the cache and the room on its
    disk. Nothing is changed, and nothing is sent anywhere.
    """
    import torch

    from selfsup import __version__
    from selfsup.base.processes import available_cores, available_memory
    from selfsup.run import versions
    from selfsup.train.device import make_fabric
    from selfsup.train.precision import resolve_precision

    device = make_fabric("auto", "auto").device
    problems: list[str] = []
    where = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}" if device.type == "cuda" else device.type
    cores, threads = available_cores(), torch.get_num_threads()
    if threads > cores:
        problems.append(f"torch uses {threads} threads on {cores} processors: set OMP_NUM_THREADS={cores}")
    capability = torch.backends.cpu.get_cpu_capability()
    about = {
        "selfsup": f"{__version__}, in {Path(__file__).parents[1]}",
        "python": f"{platform.python_version()}, {sys.executable}",
        "system": platform.platform(),
        "processor": f"{processor()}; {cores} to use of {os.cpu_count()}; torch computes with {capability}",
        "memory": f"{available_memory() / GIB:.0f} GiB",
        "device": f"{where}; precision {resolve_precision('auto', device)}, {threads} thread{'s' * (threads != 1)}",
        "packages": ", ".join(
            f"{name} {version}" for name, version in versions().items() if name not in ("selfsup", "python")
        ),
        "cache": _folder("the cache", problems),
        "temporary files": _disk(Path(tempfile.gettempdir()), "temporary files", problems),
        "environment": " ".join(f"{k}={v}" for k, v in sorted(os.environ.items()) if k.startswith(VARIABLES))
        or "plain",
    }
    return Health(about, dict(_extras()), tuple(problems))


def _extras() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield every extra with the packages of it that are missing or too old."""
    from packaging.requirements import Requirement

    needed: dict[str, list[str]] = {}
    for line in metadata.requires("selfsup") or ():
        wanted = Requirement(line)
        extra = re.search(r"extra == [\"']([\w-]+)[\"']", str(wanted.marker or ""))
        if extra is None or wanted.name == "selfsup":
            continue
        missing = needed.setdefault(extra[1], [])
        try:
            version = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            missing.append(wanted.name)
        else:
            if version not in wanted.specifier:
                missing.append(f"{wanted.name} {wanted.specifier} (here {version})")
    needed.pop("dev", None)
    yield from ((name, tuple(missing)) for name, missing in needed.items())


def processor() -> str:
    """Return the name of the processor."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


def _folder(what: str, problems: list[str]) -> str:
    try:
        folder = cache_folder()
    except RunFailed as error:
        problems.append(str(error))
        return "none"
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not os.access(there, os.W_OK):
        problems.append(f"{there} cannot be written: set SELFSUP_CACHE to a folder that can")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.exists() else 0
    return f"{folder}, {size / GIB:.1f} GiB; {_disk(there, what, problems)}"


def _disk(folder: Path, what: str, problems: list[str]) -> str:
    free = shutil.disk_usage(folder).free
    if free < LITTLE:
        problems.append(f"the disk of {what} ({folder}) has only {free / GIB:.1f} GiB left")
    return f"{free / GIB:.0f} GiB free at {folder}"
