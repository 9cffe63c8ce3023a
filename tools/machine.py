"""Print what a red test run has to be read with: processor, instruction sets, torch and threads."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch


def main() -> None:
    """Print one line each."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    found = {key.strip(): value.strip() for key, value in lines.items()}
    known = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16", "sve")
    flags = (found.get("flags") or found.get("Features") or "").split()
    print("processor:", found.get("model name", platform.processor() or platform.machine()))
    print("instruction sets:", " ".join(name for name in known if name in flags) or "unknown")
    print("torch:", torch.__version__, "computes with", torch.backends.cpu.get_cpu_capability())
    print("threads:", torch.get_num_threads(), "of", os.cpu_count(), "processors; Python", platform.python_version())
    asked = {name: value for name, value in os.environ.items() if name.startswith(("ATEN_", "ONEDNN_", "OMP_", "MKL_"))}
    print("environment:", asked or "as it is", "PYTHONHASHSEED", os.environ.get("PYTHONHASHSEED", "random"))


if __name__ == "__main__":
    main()
