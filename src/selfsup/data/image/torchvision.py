"""Data sets of torchvision, by name."""

from __future__ import annotations

import inspect
from typing import Any

from selfsup.base.cache import REMEDY, cache_folder
from selfsup.data.image.items import Items
from selfsup.data.objects import dataset_labels
from selfsup.errors import UserError, unknown
from selfsup.source import Broken

# modes of Pillow whose values are not those of colours on white


def open_torchvision(name: str) -> Items:
    """Open `torchvision:NAME[:PART]`. Raises `UserError` for a data set that torchvision cannot provide."""
    import torchvision.datasets

    _, wanted, *part = name.split(":", 2)
    found = {key: getattr(torchvision.datasets, key) for key in torchvision.datasets.__all__}
    base = found.pop("VisionDataset")
    known = {key: one for key, one in found.items() if inspect.isclass(one) and issubclass(one, base)}
    if wanted not in known:
        raise unknown("torchvision data set", wanted, known)
    takes = inspect.signature(known[wanted].__init__).parameters
    options: dict[str, Any] = {"root": cache_folder() / "torchvision"} if "root" in takes else {}
    options |= {"download": True} if "download" in takes else {}
    if "split" in takes:
        options["split"] = part[0] if part else "train"
    elif "train" in takes and (not part or part[0] in ("train", "test")):
        options["train"] = part != ["test"]
    elif part:
        raise UserError(f"{name}: torchvision's {wanted} has no part {part[0]!r}")
    try:
        dataset = known[wanted](**options)
        return Items(dataset, name, dataset_labels(dataset, name))
    except (OSError, RuntimeError, ValueError, TypeError, ImportError, Broken) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        if isinstance(error, OSError) and error.filename and str(cache_folder()).startswith(str(error.filename)):
            reason += f"; {REMEDY}"
        raise UserError(f"torchvision cannot provide {wanted} as images: {reason}") from error
