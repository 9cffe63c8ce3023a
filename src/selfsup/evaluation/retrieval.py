"""Retrieval: do the nearest items share the label?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from selfsup.errors import UserError
from selfsup.evaluation.rows import Features, Ids, as_matrix, blocks


class Retrieval(NamedTuple):
    """How well the nearest items match."""

    recall: dict[int, float]  # R@k: the fraction of queries with a match among the k nearest, 0 to 1
    mean_ap: float  # mAP: the mean over queries of the average precision of the whole ranking, 0 to 1
    queries: int  # how many queries had any match to find; the others are left out


def retrieval(
    x: Features,
    y: Ids,
    gallery: Features | None = None,
    gallery_y: Ids | None = None,
    *,
    ks: Sequence[int] = (1, 5, 10),
) -> Retrieval:
    """Rank the gallery by cosine for each query; an item with the query's label is a match.

    Args:
        x: queries (m, d).
        y: their class ids (m,); an item without a label (-1) is not a query and matches nothing.
        gallery: (n, d). None: the queries themselves, each of which is then not its own match.
        gallery_y: class ids (n,), with a gallery.
        ks: the k of the recalls; a k larger than the gallery stands for all of it.

    Raises:
        UserError: features that are not finite, shapes that do not fit, no query with any match.
    """
    among = gallery is None
    queries, ids = _labelled(x, y)
    items, item_ids = (queries, ids) if gallery is None or gallery_y is None else _labelled(gallery, gallery_y)
    if items.shape[1] != queries.shape[1]:
        raise UserError(f"queries have {queries.shape[1]} dimensions, the gallery {items.shape[1]}")
    queries, columns = F.normalize(queries), F.normalize(items).T
    found, precision, count = dict.fromkeys(ks, 0), 0.0, 0
    for rows in blocks(len(queries), len(items), 2**24):
        similarity = queries[rows] @ columns
        match = ids[rows, None] == item_ids
        if among:
            own = torch.arange(rows.start, rows.stop, device=ids.device)[:, None]
            similarity.scatter_(1, own, -torch.inf)
            match.scatter_(1, own, False)
        match = match[match.any(1)].gather(1, similarity[match.any(1)].argsort(1, descending=True))
        so_far = match.cumsum(1)
        rank = torch.arange(1, match.shape[1] + 1, device=ids.device)
        precision += float(((so_far / rank) * match).sum(1).div(so_far[:, -1]).sum(dtype=torch.float64))
        count += len(match)
        for k in ks:
            found[k] += int(match[:, :k].any(1).sum())
    if count == 0:
        raise UserError("no query has an item of the same class; are the labels file names?")
    return Retrieval({k: hits / count for k, hits in found.items()}, precision / count, count)


def _labelled(x: Features, y: Ids) -> tuple[torch.Tensor, torch.Tensor]:
    features = as_matrix(x)
    ids = torch.as_tensor(y).to(features.device)
    if ids.shape != (len(features),):
        raise UserError(f"{len(features)} samples need as many class ids, not {tuple(ids.shape)}")
    return features[ids >= 0], ids[ids >= 0]
