"""What very large data cost: the order of 10⁹ samples, shards beside a folder and beside the peers, and a slow store.

    python benchmarks/loading.py order
    python benchmarks/loading.py local [--images 5000] [--seconds 20] [--rounds 3]
    python benchmarks/loading.py slow [--images 4000] [--steps 40] [--batch-size 64]

`local`: JPEGs of 500 × 375 pixels (the same 64 under new names) are read in random order, decoded, cropped at random to
224 pixels and made into batches of 64, each store in a process of its own and all of them in turn; a run reports the
median of its rounds. Peers that are not installed are left out: pip install webdataset litdata pylance. torchvision,
webdataset and litdata decode with Pillow in as many worker processes as there are cores. Start: from opening the data
to the first batch, with files in the system's cache. Memory: the peak of a process, or of the largest of its workers,
above what the imports alone take.
Resume: the batch that a run stopped in mid-epoch would have made next, asked of a new loader; exact if it is the same.

`slow`: a server on loopback, in a process of its own, answers each request after 50 ms and 2% of them with 503; a
training step is a sleep of 0.5 s, as on a GPU.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import selfsup
from selfsup.base.processes import available_cores
from selfsup.data.open import open_data
from selfsup.errors import UserError
from selfsup.views.image import Crop, ImageViews
from selfsup.views.loader import batches
from selfsup.views.order import places

BATCH, SIZE, DISTINCT, STOP = 64, 224, 64, 20
OURS = ("folder", "tar", "lance", "parquet")
PEERS = ("torchvision", "webdataset", "litdata")
SCALE = (0.2, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["order", "local", "slow", "worker", "server"])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--kind", default="")
    parser.add_argument("--data", default="")
    args = parser.parse_args()
    {"order": order, "local": local, "slow": slow, "worker": worker, "server": server}[args.part](args)


def order(args: argparse.Namespace) -> None:
    """Print the time and the memory of the order of any step."""
    for count in (10**6, 10**9):
        for block in (1, 1000):
            times = []
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            for step in np.random.default_rng(0).integers(0, count // 256, 300).tolist():
                began = time.perf_counter()
                places(0, 1, count, step * 256, step * 256 + 256, block)
                times.append(1000 * (time.perf_counter() - began))
            more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
            print(
                f"{count:>13,} samples, block {block:>5}: {statistics.median(times):.3f} ms a batch of 256 "
                f"(at most {max(times):.3f}), {more:.1f} MB more at the peak"
            )


def local(args: argparse.Namespace) -> None:
    """Print a row for each store."""
    with tempfile.TemporaryDirectory() as folder:
        places = prepared(Path(folder), args.images)
        found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in places}
        for _ in range(args.rounds):
            for kind, data in places.items():
                words = ["worker", "--kind", kind, "--data", str(data), "--seconds", str(args.seconds)]
                told = subprocess.run(
                    [sys.executable, __file__, *words], capture_output=True, text=True, env=environment(folder)
                )
                if told.returncode:
                    print(f"{kind}: {told.stderr.strip().splitlines()[-1]}")
                else:
                    found[kind].append(json.loads(told.stdout.splitlines()[-1]))
    print(f"{args.images:,} images, {available_cores()} cores, {args.rounds} rounds of {args.seconds:g} s")
    print(f"{'':12}{'images/s':>10}{'of folder':>10}{'MB':>8}{'start, s':>10}{'resume, s':>11}  resumed batch")
    base = statistics.median(one["rate"] for one in found["folder"])
    for kind, rows in found.items():
        if rows:
            middle = {key: statistics.median(row[key] for row in rows) for key in ("rate", "memory", "start")}
            again = [row["resume"] for row in rows if row["resume"] is not None] or [float("nan")]
            print(
                f"{kind:12}{middle['rate']:10.0f}{middle['rate'] / base:10.2f}{middle['memory']:8.0f}"
                f"{middle['start']:10.2f}{statistics.median(again):11.2f}  {rows[0]['exact']}"
            )


def prepared(folder: Path, count: int, wanted: Sequence[str] = OURS + PEERS) -> dict[str, Path]:
    """Write the images in these layouts, and return where each is."""
    rng = np.random.default_rng(0)
    files = []
    for _ in range(DISTINCT):
        coarse = rng.normal(128, 50, (24, 32, 3)).clip(0, 255).astype(np.uint8)
        out = io.BytesIO()
        fine = np.asarray(Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC), np.float32)
        noisy = (fine + rng.normal(0, 9, fine.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(out, "JPEG", quality=88)
        files.append(out.getvalue())
    root = folder / "images"
    for number in range(count):
        path = root / f"{number % 10}" / f"{number:07}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files[number % DISTINCT])
    places = {"folder": root}
    for to in [kind for kind in OURS[1:] if kind in wanted]:
        places[to] = folder / f"packed.{to}"
        try:
            selfsup.pack(root, out=places[to], to=to, labels="folders", shard_mb=64, quiet=True)
        except UserError as error:
            print(f"{to}: {error}")
            del places[to]
    if "litdata" not in wanted:
        return places
    places |= {"torchvision": root, "webdataset": places["tar"]}
    try:
        import litdata

        litdata.optimize(_content, [str(path) for path in sorted(root.rglob("*.jpg"))], str(folder / "litdata"),
                         chunk_bytes="64MB", num_workers=1)  # fmt: skip
        places["litdata"] = folder / "litdata"
    except ImportError:
        print("litdata is not installed")
    return places


def _content(path: str) -> dict[str, Any]:
    return {"image": Path(path).read_bytes(), "label": int(Path(path).parent.name)}


def worker(args: argparse.Namespace) -> None:
    """Measure one store in this process, and print what was found as JSON."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    stream = STREAMS[args.kind](args.data, 0)
    first = next(stream)
    start = time.perf_counter() - began
    begun, read, seen = time.perf_counter(), 0, [first]
    for batch in stream:
        read += len(batch[0])
        if len(seen) <= STOP:
            seen.append(batch)
        if time.perf_counter() - begun > args.seconds and len(seen) > STOP:
            break
    rate = read / (time.perf_counter() - begun)
    used = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    resume, exact = None, "no resuming"
    if args.kind in OURS:
        began = time.perf_counter()
        x, label = next(STREAMS[args.kind](args.data, STOP))
        resume = time.perf_counter() - began
        exact = "exact" if torch.equal(x, seen[STOP][0]) and torch.equal(label, seen[STOP][1]) else "another"
    elif args.kind == "litdata":
        resume, exact = resumed_litdata(args.data)
    del stream
    memory = (max(used) - before) / 1024
    print(json.dumps({"rate": rate, "memory": memory, "start": start, "resume": resume, "exact": exact}))
    sys.stdout.flush()
    os._exit(0)  # workers of peers may not end by themselves


def ours(data: str, start: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    source = open_data(data, "folders")
    views = ImageViews(source.spec(size=SIZE), {"x": Crop(SIZE, scale=SCALE)}, labels=True)
    for fetched in batches(source, views, batch_size=BATCH, seed=0, start=start, steps=10**9):
        yield fetched.batch["x"], fetched.batch["y"]


def _transform() -> Callable[[Any], torch.Tensor]:
    from torchvision.transforms import v2

    crop = [v2.RandomResizedCrop(SIZE, scale=SCALE), v2.RandomHorizontalFlip()]
    return v2.Compose([v2.PILToTensor(), *crop])


def torchvision(data: str, start: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    from torchvision.datasets import ImageFolder

    folder = ImageFolder(data, _transform())
    while True:
        yield from torch.utils.data.DataLoader(folder, BATCH, True, num_workers=available_cores(), drop_last=True)


def webdataset(data: str, start: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    import webdataset as wds

    shards = sorted(map(str, Path(data).glob("*.tar")))
    made = wds.WebDataset(shards, shardshuffle=len(shards), empty_check=False).shuffle(1000).decode("pil")
    made = made.to_tuple("jpg", "cls").map_tuple(_transform(), torch.tensor).batched(BATCH)
    workers = min(available_cores(), len(shards))
    while True:
        yield from wds.WebLoader(made, batch_size=None, num_workers=workers)


class _Decoded:
    """An item of litdata as a tensor and a label, in a class that worker processes can be sent."""

    def __init__(self) -> None:
        self.change = _transform()

    def __call__(self, items: list[Any]) -> tuple[torch.Tensor, torch.Tensor]:
        images = [self.change(Image.open(io.BytesIO(item["image"])).convert("RGB")) for item in items]
        return torch.stack(images), torch.tensor([item["label"] for item in items])


def _litdata(data: str) -> Any:
    import litdata

    dataset = litdata.StreamingDataset(data, shuffle=True, drop_last=True, seed=0)
    return litdata.StreamingDataLoader(
        dataset, batch_size=BATCH, num_workers=available_cores(), collate_fn=_Decoded(), drop_last=True
    )


def litdata_batches(data: str, start: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    loader = _litdata(data)
    while True:
        yield from loader


def resumed_litdata(data: str) -> tuple[float | None, str]:
    """Return the seconds to the first batch behind a saved state, and whether its labels are those that came next."""
    loader = _litdata(data)
    stream = iter(loader)
    for _ in range(STOP):
        next(stream)
    state = loader.state_dict()
    wanted = next(stream)[1]
    again = _litdata(data)
    began = time.perf_counter()
    again.load_state_dict(state)
    found = next(iter(again))[1]
    order = "the same samples, other crops" if torch.equal(found, wanted) else "other samples"
    return time.perf_counter() - began, order


STREAMS: dict[str, Callable[[str, int], Iterator[tuple[torch.Tensor, torch.Tensor]]]] = {
    **dict.fromkeys(OURS, ours), "torchvision": torchvision, "webdataset": webdataset, "litdata": litdata_batches,
}  # fmt: skip


def slow(args: argparse.Namespace) -> None:
    """Print which part of the time a training waits for a store that lags and fails."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= environment(folder)
        data = prepared(Path(folder), args.images, ("tar",))["tar"]
        store = subprocess.Popen(
            [sys.executable, __file__, "server", "--data", str(data)], stdout=subprocess.PIPE, text=True
        )
        try:
            assert store.stdout
            url = store.stdout.readline().strip()
            began = time.perf_counter()
            source = open_data(url)
            views = ImageViews(source.spec(size=SIZE), {"x": Crop(SIZE, scale=SCALE)})
            stream = batches(source, views, batch_size=args.batch_size, seed=0, start=0, steps=args.steps)
            next(stream)
            print(f"first batch after {time.perf_counter() - began:.1f} s")
            waited, began = 0.0, time.perf_counter()
            for _ in range(args.steps - 1):
                time.sleep(0.5)
                asked = time.perf_counter()
                next(stream)
                waited += time.perf_counter() - asked
            whole = time.perf_counter() - began
        finally:
            store.kill()
    print(
        f"{args.images:,} images, batches of {args.batch_size}, 50 ms and 2% of 503: "
        f"waiting {100 * waited / whole:.1f}% of {whole / (args.steps - 1):.3f} s a step"
    )


def server(args: argparse.Namespace) -> None:
    """Serve shards on loopback until killed; the address is printed first."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from support.server import Store

    store = Store(Path(args.data), latency=0.05, fails=50)
    print(store.url, flush=True)
    store.serve_forever()


def environment(folder: str) -> dict[str, str]:
    return {**os.environ, "SELFSUP_CACHE": f"{folder}/cache"}


if __name__ == "__main__":
    main()
