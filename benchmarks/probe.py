"""The linear probe and kNN side by side with lightly and scikit-learn.

    python benchmarks/probe.py            # all of it: about half an hour on two cores
    python benchmarks/probe.py --only sgd --classes 1000 --timed-epochs 4    # its 90 epochs extrapolated, and said so
    python benchmarks/probe.py --small    # a smoke test: half a minute; its ratios mean nothing

Features are synthetic: a power-law spectrum (exponent 1) within classes, class means that decay faster, rotated, so
that no axis is special, and standardized for all. Runs of the two sides alternate, and what is printed is the
ratio of neighbours in time. CPU seconds beside wall seconds show when somebody else used the machine.
"""

from __future__ import annotations

import argparse
import logging
import platform
import resource
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from selfsup.commands.doctor import processor
from selfsup.evaluation.knn import KNN, neighbours
from selfsup.evaluation.metrics import accuracy
from selfsup.evaluation.probe import fit_probe

EPOCHS = 90  # of lightly's linear evaluation, with batch 256, SGD with momentum 0.9, learning rate 0.1 and cosine decay


class Run(NamedTuple):
    """Seconds and the result."""

    wall: float
    cpu: float
    result: Any


class Data(NamedTuple):
    """Features and class ids for fitting and for the test."""

    x: NDArray[np.float32]
    y: NDArray[np.int64]
    test_x: NDArray[np.float32]
    test_y: NDArray[np.int64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--small", action="store_true", help="a smoke test")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", nargs="*", default=["knn", "sgd", "solver"], choices=["knn", "sgd", "solver"])
    parser.add_argument("--classes", nargs="*", type=int, default=[10, 1000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--timed-epochs", type=int, help="extrapolate lightly's time from this many epochs")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore")
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    packages = ", ".join(
        f"{p} {version(p)}" for p in ("torch", "numpy", "scikit-learn", "lightly", "pytorch-lightning")
    )
    print(f"{processor()}, {args.threads} threads, Python {platform.python_version()}")
    print(packages)
    if "knn" in args.only:
        compare_knn(*(2_000, 500, 200) if args.small else (200_000, 50_000, 6_000), args.repeats)
    for classes in args.classes:
        data = features(
            3_000 if args.small else 50_000,
            1_000 if args.small else 10_000,
            min(classes, 100 if args.small else classes),
        )
        if "sgd" in args.only:
            compare_sgd(data, 2 if args.small else EPOCHS, args.timed_epochs)
        if "solver" in args.only:
            compare_solvers(data, args.repeats if classes <= 10 else 1)


def features(n: int, tests: int, classes: int, dim: int = 512) -> Data:
    rng = np.random.default_rng(0)
    index = np.arange(1, dim + 1)
    rotation = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    means = rng.normal(size=(classes, dim)) * index**-0.8 * (0.5 if classes <= 10 else 1.3)
    y = np.arange(n + tests) % classes
    x = ((rng.normal(size=(n + tests, dim)) * index**-0.5 + means[y]) @ rotation).astype(np.float32)
    x = (x - x[:n].mean(0)) / x[:n].std(0)
    return Data(x[:n], y[:n], x[n:], y[n:])


def compare_sgd(data: Data, epochs: int, timed: int | None) -> None:
    """Ours with its cross-validation, lightly's linear evaluation, ours again."""
    classes = int(data.y.max()) + 1
    first = measure(lambda: fit_probe(data.x, data.y, classes).predict(data.test_x))
    name = f"lightly, {epochs} epochs"
    if timed is None:
        theirs = measure(lambda: lightly_linear(data, classes, epochs))
    else:
        measure(lambda: lightly_linear(data, classes, 1))  # the libraries' own warm-up
        one, some = (measure(lambda n=n: lightly_linear(data, classes, n)) for n in (1, timed))
        wall, cpu = ((b - a) / (timed - 1) * epochs for a, b in zip(one[:2], some[:2], strict=True))
        theirs = Run(wall, cpu, some.result)
    second = measure(lambda: fit_probe(data.x, data.y, classes).predict(data.test_x))
    print(f"\nlinear probe, {data.x.shape[0]} × {data.x.shape[1]}, {classes} classes, penalty cross-validated")
    show("ours", [first, second], data)
    show(name, [theirs], data)
    if timed is not None:
        print(
            f"  EXTRAPOLATED: lightly's time, from {timed} epochs; its accuracy is that of a schedule of {timed} epochs"
        )
    ratio("lightly / ours", [theirs, theirs], [first, second])


def compare_solvers(data: Data, repeats: int) -> None:
    """Ours and scikit-learn's logistic regression at one penalty, with its own tolerance and enough iterations."""
    from sklearn.linear_model import LogisticRegression

    classes, penalty = int(data.y.max()) + 1, 0.1
    peer = LogisticRegression(C=1 / (penalty * data.x.shape[1]), max_iter=1000)
    ours, theirs = [], []
    for _ in range(repeats):
        ours.append(measure(lambda: fit_probe(data.x, data.y, classes, penalties=[penalty]).predict(data.test_x)))
        theirs.append(measure(lambda: peer.fit(data.x, data.y).predict(data.test_x)))
    print(f"\nlinear probe, {data.x.shape[0]} × {data.x.shape[1]}, {classes} classes, one penalty")
    show("ours", ours, data)
    show(f"scikit-learn, {int(peer.n_iter_[0])} iterations", theirs, data)
    ratio("scikit-learn / ours", theirs, ours)


def compare_knn(gallery: int, queries: int, part: int, repeats: int) -> None:
    """All queries by ours, for memory; the first `part` by everybody, for speed."""
    from lightly.utils.benchmarking import knn_predict
    from sklearn.neighbors import KNeighborsClassifier

    rng, k = np.random.default_rng(0), 200
    x, q = (rng.standard_normal((n, 512), dtype=np.float32) for n in (gallery, queries))
    y = np.arange(gallery) % 10
    x[:, :10] += 2 * np.eye(10, dtype=np.float32)[y]
    q[:, :10] += 2 * np.eye(10, dtype=np.float32)[np.arange(queries) % 10]
    truth = np.arange(queries) % 10
    neighbours(q[:256], x[:1024], k)  # the libraries' own warm-up
    before = peak_mb()
    knn = KNN(torch.from_numpy(x), torch.from_numpy(y), 10, k)
    whole = measure(lambda: knn.predict(q))
    print(f"\nkNN, gallery {gallery} × 512, {queries} queries, k = {k}: {whole.wall:.1f} s, {whole.cpu:.1f} CPU s,")
    print(f"  at most {peak_mb() - before:.0f} MB above the features; accuracy {accuracy(truth, whole.result):.4f}")
    bank = torch.nn.functional.normalize(torch.from_numpy(x)).T.contiguous()
    queried = torch.nn.functional.normalize(torch.from_numpy(q[:part]))
    peer = KNeighborsClassifier(k, metric="cosine", algorithm="brute").fit(x, y)

    def lightly() -> NDArray[np.int64]:
        found = [knn_predict(queried[i : i + 256], bank, knn.ids, 10, k)[:, 0] for i in range(0, part, 256)]
        return torch.cat(found).numpy()

    rows: dict[str, list[Run]] = {"ours": [], "lightly, batches of 256": [], "scikit-learn, equal votes": []}
    for _ in range(repeats):
        for runs, work in zip(
            rows.values(), (lambda: knn.predict(q[:part]), lightly, lambda: peer.predict(q[:part])), strict=True
        ):
            runs.append(measure(work))
    print(f"  the first {part} queries:")
    for name, runs in rows.items():
        show(name, runs, Data(x, y, q[:part], truth[:part]))
    ours = rows.pop("ours")
    for name, runs in rows.items():
        ratio(f"{name.split(',')[0]} / ours", runs, ours)


def lightly_linear(data: Data, classes: int, epochs: int) -> NDArray[np.int64]:
    from lightly.utils.benchmarking import LinearClassifier
    from pytorch_lightning import Trainer, seed_everything
    from torch.utils.data import DataLoader, TensorDataset

    seed_everything(0, verbose=False)
    pairs = TensorDataset(torch.from_numpy(data.x), torch.from_numpy(data.y))
    model = LinearClassifier(torch.nn.Identity(), 256, feature_dim=data.x.shape[1], num_classes=classes)
    trainer = Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, DataLoader(pairs, batch_size=256, shuffle=True, drop_last=True))
    with torch.no_grad():
        return model(torch.from_numpy(data.test_x)).argmax(1).numpy()


def measure(work: Callable[[], NDArray[np.int64]]) -> Run:
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return Run(time.perf_counter() - wall, time.process_time() - cpu, result)


def show(name: str, runs: list[Run], data: Data) -> None:
    wall, cpu = median(r.wall for r in runs), median(r.cpu for r in runs)
    print(f"  {name:32} {wall:8.2f} s {cpu:8.2f} CPU s   test accuracy {accuracy(data.test_y, runs[-1].result):.4f}")


def ratio(name: str, numerators: list[Run], denominators: list[Run]) -> None:
    wall = [a.wall / b.wall for a, b in zip(numerators, denominators, strict=True)]
    cpu = [a.cpu / b.cpu for a, b in zip(numerators, denominators, strict=True)]
    print(f"  {name}: wall {', '.join(f'{r:.1f}' for r in wall)}; CPU {', '.join(f'{r:.1f}' for r in cpu)}")


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # kilobytes on Linux


if __name__ == "__main__":
    main()
