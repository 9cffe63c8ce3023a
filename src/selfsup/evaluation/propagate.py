"""Label propagation: few labels spread over a nearest-neighbour graph of the unlabelled pool (`docs/evaluation.md`).

Label spreading (Zhou et al., "Learning with Local and Global Consistency", 2004; Zhu and Ghahramani, 2002) on the
graph of deep features of Iscen et al. ("Label Propagation for Deep Semi-supervised Learning", 2019). Deviations: the
features are partly whitened, first as a whole and then by how neighbours differ; each class spreads a density over the
pool, so that the frequencies of the classes are estimated from the pool rather than taken from the labels; a fraction
of every sample belongs to no class; and labels spread again from what the pool became.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import ndtr, softmax
from torch import Tensor

from selfsup.errors import UserError
from selfsup.evaluation.drawn import Drawn, Poolings
from selfsup.evaluation.linear import fit_linear
from selfsup.evaluation.probe import Probe, fit_probe, stratified_folds
from selfsup.evaluation.rows import Features, Ids, as_ids, as_matrix, principal_components
from selfsup.neighbours.graph import nearest_others

NEIGHBOURS, POWER = 10, 8  # of a sample, and the power of their cosine: near ones weigh much more
COMPONENTS = 64  # principal components, at most, and at most one for ten samples
WHITENING = 0.5  # power of the standard deviation by which a direction is divided; 1 drowns few clusters in noise
SHRINKAGE = 0.5  # of how neighbours differ, towards the same in all directions
NEAR = 10_000  # samples that are enough to tell how neighbours differ, and how frequent the classes are
ALPHA, STEPS = 0.99, 60  # of spreading
NO_CLASS = 0.3  # density of "no class", as a fraction of the mean density of a class where it is at home
READER_PENALTY = 0.1
WIDE = 512  # features up to which the reader sees them as they are; beyond, as many of their principal components
AGAIN = 12  # times that the pool spreads what it became, at most
STILL = 1e-3  # part of the pool whose class changes, below which it need not
OWN = 0.3  # weight of a class's only label then, as a fraction of the mean class
ROUNDS = 30  # of expectation maximisation, and of scaling
READ = 20_000  # samples of the pool that are enough for the reader
FOLDS = 5  # of the drawn labels
ENOUGH = 1000  # labels from which on one fold stands for all
HEAD_START = 2  # labels that only the graph is taken to have got right, in advance
LITTLE = 1e-3  # weight that changes nothing


def build_graph(x: Features) -> sparse.csr_array:
    """Return the symmetrically normalized graph (n, n), float32, of the 10 nearest neighbours of each sample.

    The features are centred, projected on at most 64 principal components (at most n / 10), each divided by the root
    of its standard deviation. Neighbours are mostly of one class, so the directions in which they differ tell little of
    classes: along the axes of their differences (those of 10,000 samples, drawn with a fixed seed, if there are more)
    the features are divided by the root of the standard deviation of these too. They are compared by cosine. An edge
    weighs cosine⁸, where one end is among the neighbours of the other; W is normalized to D^-½ W D^-½. Samples at an
    angle of 90° or more have no edge. Neighbours are exact: blocked matrix products, memory O(n · k). Beyond 100,000
    samples they are approximate where faiss is installed (extra `faiss`), and otherwise still exact; where that takes
    minutes, it is said how many.

    Args:
        x: features (n, d), array or tensor.

    Raises:
        UserError: features that are not finite or not (n, d).
    """
    return connect(whiten(as_matrix(x).cpu()))


def connect(z: Tensor) -> sparse.csr_array:
    """Return the graph of `build_graph` from what it compares, the unit vectors (n, r) of `whiten`."""
    n, k = len(z), min(NEIGHBOURS, len(z) - 1)
    if k < 1 or z.shape[1] == 0:
        return sparse.csr_array((n, n), dtype=np.float32)
    index, cosine = nearest_others(z, k)
    weights = cosine.clamp_min(0).numpy() ** POWER
    starts = np.arange(0, n * k + 1, k)
    one_way = sparse.csr_array((weights.ravel(), index.numpy().ravel().astype(np.int32), starts), shape=(n, n))
    graph = one_way.maximum(one_way.T).tocsr()
    graph.eliminate_zeros()
    root = 1 / np.sqrt(np.maximum(graph.sum(1), 1e-30)).astype(np.float32)
    graph.data *= np.repeat(root, np.diff(graph.indptr)) * root[graph.indices]
    return graph


def spread_labels(graph: sparse.csr_array, rows: Ids, y: Ids, classes: int, again: int = AGAIN) -> NDArray[np.float32]:
    """Spread a few labels over a graph, and return the probability of each class for each sample.

    F ← 0.99 · graph · F + 0.01 · F₀, 60 times from F₀ (Zhou et al., 2004), where each class has the same mass in F₀.
    Column c of F, divided by its sum, is the density of class c over the pool: it knows nothing of the class's
    frequency. Frequencies are estimated by expectation maximisation with a Dirichlet prior towards equal ones that
    weighs as much as the pool divided by the number of labels per class; the densities are then scaled until the
    frequencies of the result are these. A density of "no class", equal everywhere, takes its part of samples that few
    paths reach: the probabilities of a sample sum to at most 1, and the rest is that of no known class. A sample
    without a path of at most 60 edges to a label has only zeros: unsure, never guessed.

    The only label of a class may lie among samples of another one. So the pool spreads again what it became, until no
    more than one sample in a thousand changes its class, at most 12 times: in F₀ each sample stands for each class with
    the square of its probability. The labels of a class weigh as much there as 0.3 of the mean class if it has one, 1.2
    if it has two, and so on with the square of their number: many labels hardly need the pool's opinion.

    Args:
        graph: (n, n), of `build_graph`.
        rows: numbers (k,) of the labelled samples, each once.
        y: their class ids (k,), 0 <= y < classes. A class without labels has the probability 0.
        classes: how many classes there are.
        again: times, at most, that what the pool became spreads again.

    Returns:
        Probabilities (n, classes) float32.

    Raises:
        UserError: ids or rows out of range, or no label.
    """
    places, ids = _checked(graph, rows, y, classes)
    n = graph.shape[0]
    labels = np.zeros((n, classes), np.float32)
    labels[places, ids] = 1
    counts = labels.sum(0)
    own = (labels * (OWN * n / np.count_nonzero(counts)) * counts).astype(np.float32)
    probabilities = _probabilities(_spread(graph, labels), ids)
    for _ in range(again):
        before, start = probabilities.argmax(1), probabilities**2
        start[places] = 0
        probabilities = _probabilities(_spread(graph, start + own), ids)
        if (probabilities.argmax(1) != before).mean() <= STILL:
            break
    return probabilities


@dataclass(frozen=True)
class Pool:
    """What does not depend on the draw: the graph of the pool, and the features that the reader of new samples sees."""

    graph: sparse.csr_array
    axes: Tensor | None  # (d, r), where the features have too many dimensions
    features: Tensor  # (n, d or r)

    def see(self, x: Features) -> Tensor:
        """Return features as the reader sees them."""
        return as_matrix(x) if self.axes is None else as_matrix(x) @ self.axes


def prepare_pool(pool: Poolings, test: Poolings) -> Pool:
    """Return the graph of the pool. No test sample is in it."""
    x = as_matrix(pool["own"])
    axes = principal_components(x - x.mean(0), WIDE)[0] if x.shape[1] > WIDE else None
    seen = x if axes is None else x @ axes
    return Pool(build_graph(seen), axes, seen)


def prepare_transductive(pool: Poolings, test: Poolings) -> sparse.csr_array:
    """Return the graph of the pool and, after it, the test samples."""
    return build_graph(np.concatenate([pool["own"], test["own"]]))


def read_propagate(drawn: Drawn, test: Poolings) -> NDArray[np.int64]:
    """Return the class ids of new samples: of a linear reader of what the pool became, blended with `linear`.

    The reader is a linear probe on the whole pool, each sample with its most probable class, weighted by the lead of
    that class over the next; a drawn label counts as it is. The probabilities of reader and `linear` are mixed as
    `trust` says.
    """
    assert drawn.num_classes is not None
    pool: Pool = prepare_pool(drawn.pool, test) if drawn.prepared is None else drawn.prepared
    pooling, probe = _linear(drawn)
    fraction = trust(pool.graph, drawn, pooling, probe)
    mixed = (1 - fraction) * softmax(probe.scores(test[pooling]), 1)
    if fraction > LITTLE:
        mixed += fraction * softmax(fit_reader(pool, drawn).scores(pool.see(test["own"])), 1)
    return mixed.argmax(1)


def read_transductive(drawn: Drawn, test: Poolings) -> NDArray[np.int64]:
    """Return the class ids of test samples that are in the graph: what spreads to them, blended with `linear`."""
    assert drawn.num_classes is not None
    graph = prepare_transductive(drawn.pool, test) if drawn.prepared is None else drawn.prepared
    pooling, probe = _linear(drawn)
    fraction = trust(graph, drawn, pooling, probe)
    found = spread_labels(graph, drawn.rows, drawn.y, drawn.num_classes)[-len(test["own"]) :]
    found += (1 - found.sum(1, keepdims=True)).clip(0) / drawn.num_classes  # of no class: any
    return ((1 - fraction) * softmax(probe.scores(test[pooling]), 1) + fraction * found).argmax(1)


def fit_reader(pool: Pool, drawn: Drawn) -> Probe:
    """Return the linear probe of what the pool becomes when the drawn labels spread; see `read_propagate`."""
    assert drawn.num_classes is not None
    probabilities = spread_labels(pool.graph, drawn.rows, drawn.y, drawn.num_classes)
    guess, weight = probabilities.argmax(1), margin(probabilities)
    guess[drawn.rows], weight[drawn.rows] = drawn.y, 1
    if len(weight) > READ:
        weight[np.random.default_rng(0).permutation(len(weight))[READ:]] = 0
        weight[drawn.rows] = 1
    used = torch.from_numpy(weight > LITTLE)
    return fit_probe(
        pool.features[used], guess[used.numpy()], drawn.num_classes, penalties=[READER_PENALTY],
        per_feature=drawn.per_feature and pool.axes is None, weights=torch.from_numpy(weight)[used],
    )  # fmt: skip


def margin(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the probability of the first class less that of the second (n,): 0 where nothing is known."""
    if probabilities.shape[1] < 2:
        return np.asarray(probabilities[:, 0])
    first_two = np.partition(probabilities, -2, axis=1)[:, -2:]
    return np.asarray(first_two[:, 1] - first_two[:, 0])


def trust(graph: sparse.csr_array, drawn: Drawn, pooling: str, probe: Probe) -> float:
    """Return how probable it is, 0 to 1, that the graph is right more often than a linear probe: its weight.

    Told by the drawn labels alone: both predict those of stratified folds that are held out, and a sign test (normal
    approximation) compares the labels that only the graph gets right, with two in advance, and those that only the
    probe gets right. The labels spread once, which is enough for this (with 2 to 20 labels per class on four data sets
    the weight is the same to 0.01) and several times faster. With one label per class nothing can be held out, and the
    graph is trusted.
    """
    ids, rows, classes = drawn.y, drawn.rows, int(drawn.num_classes or 0)
    most = int(np.bincount(ids).max())
    if most < 2:
        return 1.0
    folds = min(FOLDS, most)
    held = stratified_folds(ids, folds, 0)
    x = drawn.features(pooling)
    ahead, behind = HEAD_START, 0
    for fold in range(1 if len(ids) >= ENOUGH else folds):
        out, kept = np.flatnonzero(held == fold), np.flatnonzero(held != fold)
        of_graph = spread_labels(graph, rows[kept], ids[kept], classes, again=0)[rows[out]]
        fitted = fit_probe(x[kept], ids[kept], classes, penalties=[probe.penalty], per_feature=drawn.per_feature)
        right = (of_graph.argmax(1) == ids[out]) & of_graph.any(1)
        others = fitted.predict(x[out]) == ids[out]
        ahead, behind = ahead + int((right & ~others).sum()), behind + int((others & ~right).sum())
    return float(ndtr((ahead - behind) / (ahead + behind) ** 0.5))


def _linear(drawn: Drawn) -> tuple[str, Probe]:
    pooling, probe = fit_linear(drawn)
    assert isinstance(probe, Probe)
    return pooling, probe


def _checked(graph: Any, rows: Ids, y: Ids, classes: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    places = torch.as_tensor(rows).to("cpu", torch.int64)
    if not len(places):
        raise UserError("labels are spread from at least one label")
    ids = as_ids(y, len(places), classes, places.device).numpy()
    if int(places.min()) < 0 or int(places.max()) >= graph.shape[0]:
        raise UserError(f"labelled rows must be 0 to {graph.shape[0] - 1}, the samples of the graph")
    if len(np.unique(places.numpy())) < len(places):
        raise UserError("a sample is labelled twice")
    return places.numpy(), ids


def _spread(graph: Any, start: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the densities (n, classes) of what spreads from `start`, relative to that of all samples."""
    start = start / np.maximum(start.sum(0), 1e-30)
    mass = start
    for _ in range(STEPS):
        mass = ALPHA * (graph @ mass) + (1 - ALPHA) * start
    density: NDArray[np.float32] = mass * (len(mass) / np.maximum(mass.sum(0), 1e-30))
    return density


def _probabilities(density: NDArray[np.float32], ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return probabilities from the densities of the classes; see `spread_labels`."""
    counts = np.bincount(ids, minlength=density.shape[1])
    present = counts > 0
    reached = density[density.any(1)]
    if len(reached) > NEAR:
        reached = reached[np.linspace(0, len(reached) - 1, NEAR).astype(np.int64)]
    equal = present / present.sum()
    prior = equal.astype(np.float32)
    strength = len(reached) / float(np.median(counts[present]))

    def members(weights: NDArray[np.float32]) -> NDArray[np.float32]:
        found = reached * weights
        total: NDArray[np.float32] = (found / (found.sum(1, keepdims=True) + NO_CLASS)).sum(0)
        return total

    for _ in range(ROUNDS):
        prior = members(prior) + strength * equal
        prior = (prior / prior.sum()).astype(np.float32)
    weights = prior.copy()
    for _ in range(ROUNDS):
        found = members(weights)
        weights *= np.sqrt(prior * found.sum() / np.maximum(found, 1e-9))
        weights /= weights.sum()
    joint = density * weights
    result: NDArray[np.float32] = joint / (joint.sum(1, keepdims=True) + NO_CLASS)
    return result


def whiten(x: Tensor) -> Tensor:
    """Return what the graph compares: unit vectors (n, at most 64), partly whitened principal components of x (n, d).

    Where all samples are alike, they have no components.
    """
    centred = x - x.mean(0)
    axes, std = principal_components(centred, max(2, min(COMPONENTS, len(x) // 10)))
    z = centred @ (axes / std**WHITENING)
    some = z[np.random.default_rng(0).permutation(len(z))[:NEAR]] if len(z) > NEAR else z
    k = min(NEIGHBOURS, len(some) - 1)
    if k < 1 or not z.shape[1]:
        return F.normalize(z)
    index, cosine = nearest_others(F.normalize(some), k)
    apart = (some[:, None] - some[index]).flatten(0, 1) * cosine.clamp_min(0).pow(POWER / 2).flatten()[:, None]
    variance, axes = torch.linalg.eigh((apart.T @ apart).double())
    variance += SHRINKAGE * variance.mean() + 1e-30
    return F.normalize(z @ axes.float() / (variance / variance.mean()).float() ** (WHITENING / 2))
