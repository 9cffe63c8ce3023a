"""Embeddings in parts on a Ray cluster: each part is a task of its own, made again elsewhere if its machine is lost.

Plain tasks and not Ray Data: a part reads its own rows and writes its own file, so that nothing is shuffled or sent.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from selfsup.base.opening import Opening, opened_as, opening
from selfsup.base.quiet import quiet_libraries
from selfsup.data.open import open_data
from selfsup.errors import RunFailed, UserError, need
from selfsup.evaluation.embedding import MOST, Embedded, Shard, check_parts, finished, write_part
from selfsup.evaluation.features import BATCH
from selfsup.run import Run
from selfsup.source import Source
from selfsup.train.device import make_fabric

ROWS = 64 * BATCH  # of a part: a minute or so of work, which a lost machine costs
RETRIES = 10  # of a part whose machine or process was lost


def embed_on_ray(
    address: str,
    run: Run,
    source: Source,
    data: Any,
    labels: Any,
    folder: Path,
    dim: int,
    about: Mapping[str, str],
    device: str,
    advance: Callable[[int], None],
) -> Embedded:
    """Write the parts that are not in the folder yet, and return the sum of all.

    `data` and `labels` are the names under which every machine opens the same `source`. Raises `UserError` for others,
    and where a machine sees other data, `RunFailed` if the cluster cannot be reached or a part fails.
    """
    ray = need("ray", "ray")
    names = [_name(one, what) for one, what in ((data, "data"), (labels, "labels"))]
    parts = max(1, min(MOST, -(-len(source) // ROWS)))
    check_parts(folder, {**about, "parts": str(parts)})
    shards = [Shard(number, parts) for number in range(parts)]
    found = {shard: finished(folder, shard, dim, source, about) for shard in shards}
    known = [one for one in found.values() if one is not None]
    advance(sum(one.rows for one in known))
    began = not ray.is_initialized()
    if began:
        try:
            with quiet_libraries():
                ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
            raise RunFailed(f"cannot reach the Ray cluster {address}: {str(error).splitlines()[0]}") from error
    try:
        gpu = device in ("auto", "cuda") and ray.cluster_resources().get("GPU", 0) >= 1
        task = ray.remote(max_retries=RETRIES, **({"num_gpus": 1} if gpu else {"num_cpus": 1}))(_part)
        asked = (str(run.folder.resolve()), *names, opening(), str(folder.resolve()))
        waiting = [task.remote(*asked, shard, dict(about), device) for shard, there in found.items() if there is None]
        while waiting:
            (ready,), waiting = ray.wait(waiting, num_returns=1)
            one = ray.get(ready)
            known.append(one)
            advance(one.rows)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, UserError | RunFailed):
            raise type(cause)(str(cause)) from None
        raise RunFailed(f"a part failed: {type(cause).__name__}: {cause}; the same command goes on") from error
    except ray.exceptions.RayError as error:
        raise RunFailed(f"the Ray cluster failed: {str(error).splitlines()[0]}; the same command goes on") from error
    finally:
        if began:
            ray.shutdown()
    there = sum(one.there for one in known)
    return Embedded(folder, sum(one.rows for one in known), dim, sum(one.skipped for one in known), there)


def _name(given: Any, what: str) -> str | None:
    """Return a path as every machine understands it, or the name of built-in data."""
    if given is not None and not isinstance(given, str | os.PathLike):
        raise UserError(f"on a Ray cluster the {what} are a path that all machines see, not {type(given).__name__}")
    path = None if given is None else os.fspath(given)
    return os.path.abspath(path) if path and os.path.exists(path) else path


def _part(
    run: str, data: str, labels: str | None, way: Opening, folder: str, shard: Shard, about: dict[str, str], device: str
) -> Embedded:
    """Write one part; it runs in a process of the cluster."""
    opened, encoder, source = _opened(run, data, labels, way)
    if source.fingerprint() != about["fingerprint"]:
        raise UserError(f"a machine of the cluster sees other data in {data}: give a path that is the same for all")
    return write_part(Path(folder), shard, encoder, source, opened, about, make_fabric(device, "float32").device)


@functools.lru_cache(maxsize=1)
def _opened(run: str, data: str, labels: str | None, way: Opening) -> tuple[Run, Any, Source]:
    """Return what the parts of one process share."""
    opened = Run(run)
    with opened_as(way):
        return opened, opened.load(), open_data(data, labels)
