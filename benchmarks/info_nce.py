"""InfoNCE in O(B · d) memory against the direct form: memory, time, and the same gradient.

    python benchmarks/info_nce.py                          # two minutes on two cores
    python benchmarks/info_nce.py --device cuda

Memory (Linux): the growth of the peak of a fresh process (on a GPU: of the allocator) over loss and gradient, for
`--large` queries and as many keys of dimension 128; the direct form's is computed where it does not fit: three matrices
B × B in float32 (logits, their log-softmax, its gradient). Time: the forms take turns; median of the paired ratios.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.commands.doctor import processor
from selfsup.losses import info_nce

DIM, TEMPERATURE = 128, 0.1


def direct(query: Tensor, key: Tensor) -> Tensor:
    return F.cross_entropy(query @ key.T / TEMPERATURE, torch.arange(len(query), device=query.device))


def tiled(query: Tensor, key: Tensor) -> Tensor:
    return info_nce(query, key, TEMPERATURE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=8192)
    parser.add_argument("--large", type=int, default=65536)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.memory_of:
        print(grown(globals()[args.memory_of], args.large, args.device))
        return
    print(f"{processor()}, {args.device}, {args.threads} threads, torch {torch.__version__}, d = {DIM}")
    seconds: dict[str, list[float]] = {"direct": [], "tiled": []}
    for _ in range(args.rounds + 1):
        for form in (direct, tiled):
            seconds[form.__name__].append(timed(form, args.batch, args.device))
    ratios = [ours / theirs for ours, theirs in zip(seconds["tiled"][1:], seconds["direct"][1:], strict=True)]
    for name, values in seconds.items():
        print(f"  batch {args.batch:6}, {name:6}: {median(values[1:]):7.3f} s for loss and gradient")
    print(f"  tiled / direct: {median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f})")
    error = relative(gradient(direct, args.device), gradient(tiled, args.device))
    print(f"  largest difference of the gradients, relative to the largest entry: {error:.1e}")
    for batch in (args.batch, args.large):
        words = [sys.executable, __file__, *sys.argv[1:], "--large", str(batch)]
        ours = float(subprocess.check_output([*words, "--memory-of", "tiled"]))
        fits = batch == args.batch
        theirs = float(subprocess.check_output([*words, "--memory-of", "direct"])) if fits else 3 * 4 * batch**2 / 2**20
        how = "measured" if fits else "computed"
        print(f"  batch {batch:6}: tiled {ours:8.0f} MiB, direct {theirs:8.0f} MiB ({how}): 1/{theirs / ours:.0f}")


def pair(batch: int, device: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2, batch, DIM, generator=generator)
    query, key = F.normalize(rows + rows[:1], dim=2).to(device)
    return query.requires_grad_(), key.requires_grad_()


def timed(form: Callable[[Tensor, Tensor], Tensor], batch: int, device: str) -> float:
    tensors = pair(batch, device)
    wait(device)
    began = time.perf_counter()
    form(*tensors).backward()
    wait(device)
    return time.perf_counter() - began


def gradient(form: Callable[[Tensor, Tensor], Tensor], device: str) -> Tensor:
    tensors = pair(2048, device)
    return torch.cat(torch.autograd.grad(form(*tensors), tensors))


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / a.abs().max())


def grown(form: Callable[[Tensor, Tensor], Tensor], batch: int, device: str) -> float:
    """Return by how many MiB the peak grows."""
    timed(form, 64, device)
    tensors = pair(batch, device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.max_memory_allocated()
        form(*tensors).backward()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak to what is in use now
    before = resident("VmRSS")
    form(*tensors).backward()
    return (resident("VmHWM") - before) / 1024


def resident(what: str) -> int:
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith(what))


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
