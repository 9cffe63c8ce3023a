"""Search in 10⁵ to 10⁷ vectors: milliseconds a query, bytes a vector and recall@10 of an approximate index.

    python benchmarks/searching.py --root /tmp/searching [--rows 100000 1000000 10000000] [--dim 128]

The vectors are drawn from one mixture: 300 clusters whose sizes fall as 1/rank, each a Gaussian in 12 directions of its
own, and noise in all. They are written as `selfsup embed` writes them, in parts of 10⁶ rows, and indexed by
`selfsup index --approximate` (extra `faiss`), unless they are there. Then 2,000 rows are queries, one at a time on one
thread, in interleaved rounds over the sizes after one to warm up; the median of the rounds is printed, with recall@10
as the index has measured it, and the time and memory to build, also as JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from selfsup.neighbours.index import Index

CLUSTERS, INNER, NOISE, SPREAD = 300, 12, 0.15, 6.0
PART, BLOCK = 10**6, 10**5
QUERIES, ROUNDS = 2000, 5


def mixture(rows: int, dim: int, seed: int = 0) -> Iterator[NDArray[np.float32]]:
    """Yield blocks of vectors; a smaller set is the beginning of a larger one."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(CLUSTERS, dim)).astype(np.float32)
    bases = (rng.normal(size=(CLUSTERS, INNER, dim)) / dim**0.5).astype(np.float32)
    scale = np.linspace(1.5, 0.5, INNER, dtype=np.float32) * SPREAD
    likely = 1 / np.arange(1, CLUSTERS + 1)
    for start in range(0, rows, BLOCK):
        rng = np.random.default_rng([seed, start])
        cluster = np.sort(rng.choice(CLUSTERS, min(BLOCK, rows - start), p=likely / likely.sum()))
        x = NOISE * rng.normal(size=(len(cluster), dim)).astype(np.float32)
        inner = rng.normal(size=(len(cluster), INNER)).astype(np.float32) * scale
        edges = np.searchsorted(cluster, np.arange(CLUSTERS + 1))
        for i in range(CLUSTERS):
            some = slice(edges[i], edges[i + 1])
            x[some] += centres[i] + inner[some] @ bases[i]
        yield rng.permutation(x)


def write(folder: Path, rows: int, dim: int) -> None:
    """Write the embeddings, in parts."""
    folder.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([("path", pa.string()), ("label", pa.string()), ("vector", pa.list_(pa.float32(), dim))])
    writer, done = None, 0
    for x in mixture(rows, dim):
        if writer is None or done % PART == 0:
            if writer is not None:
                writer.close()
            writer = pq.ParquetWriter(folder / f"part-{done // PART:05d}.parquet", schema)
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), dim)
        paths = pa.array([f"p/{i:09d}.png" for i in range(done, done + len(x))])
        writer.write_batch(pa.record_batch([paths, pa.nulls(len(x), pa.string()), vectors], schema=schema))
        done += len(x)
    if writer is not None:
        writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--rows", type=int, nargs="+", default=[10**5, 10**6, 10**7])
    parser.add_argument("--dim", type=int, default=128)
    args = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[int, dict[str, float]] = {}
    indexes: dict[int, Index] = {}
    for rows in args.rows:
        embeddings, folder = args.root / f"embeddings-{rows}", args.root / f"index-{rows}"
        if not embeddings.exists():
            write(embeddings, rows, args.dim)
        built: dict[str, float] = {}
        if not (folder / "index.json").exists():
            began = time.perf_counter()
            command = [sys.executable, "-m", "selfsup", "index", str(embeddings), "-o", str(folder), "--approximate"]
            subprocess.run([*command, "--quiet"], check=True)
            usage = resource.getrusage(resource.RUSAGE_CHILDREN)
            built = {"build seconds": time.perf_counter() - began, "build peak MB": usage.ru_maxrss / 1e3}
        index = indexes[rows] = Index(folder)
        assert index.coder is not None
        index.coder.faiss.omp_set_num_threads(1)
        wanted = ("recall_at_10", "probe", "lists", "bytes_in_memory", "bytes_on_disk")
        found[rows] = built | {key: index.about[key] for key in wanted}
    queries = np.concatenate(list(mixture(BLOCK, args.dim, seed=0)))[:: BLOCK // QUERIES][:QUERIES]
    times: dict[int, list[float]] = {rows: [] for rows in args.rows}
    cpu: dict[int, list[float]] = {rows: [] for rows in args.rows}
    for _ in range(ROUNDS + 1):
        for rows, index in indexes.items():
            began, busy = time.perf_counter(), time.process_time()
            for query in queries:
                index.search(query[None], 10)
            times[rows].append((time.perf_counter() - began) / len(queries) * 1e3)
            cpu[rows].append((time.process_time() - busy) / len(queries) * 1e3)
    for rows, numbers in found.items():
        numbers["ms a query"] = statistics.median(times[rows][1:])
        numbers["ms of CPU a query"] = statistics.median(cpu[rows][1:])
        numbers["ms, least and most"] = [min(times[rows][1:]), max(times[rows][1:])]  # type: ignore[assignment]
        print(f"{rows:>11,} " + "  ".join(f"{k} {v:,.4g}" for k, v in numbers.items() if isinstance(v, int | float)))
    print(json.dumps({str(rows): numbers for rows, numbers in found.items()}))


if __name__ == "__main__":
    main()
