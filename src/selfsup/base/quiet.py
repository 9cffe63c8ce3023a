"""Other libraries are quiet while we compute: what matters of what they find, we say ourselves, in one line."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator

LIBRARIES = (
    "PIL", "datasets", "huggingface_hub", "lightning_fabric", "matplotlib", "numba", "onnx_ir", "onnxscript",
    "tensorboard", "tifffile", "timm", "torch", "torchvision", "transformers",
)  # fmt: skip


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Let other libraries neither log nor warn meanwhile; afterwards every logger and filter is as it was.

    What someone asked for still appears: loggers set to DEBUG, warnings with -W or PYTHONWARNINGS, and those
    that were made errors.
    """
    changed = [(logger, logger.level) for logger in _loggers() if logger.level != logging.DEBUG]
    for logger, _ in changed:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions and not any(action == "error" for action, *_ in warnings.filters):
                warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in changed:
            logger.setLevel(level)


def _loggers() -> Iterator[logging.Logger]:
    """Yield the loggers of the libraries, and those below them that have a level of their own."""
    yield from map(logging.getLogger, LIBRARIES)
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if name.partition(".")[0] in LIBRARIES and "." in name and isinstance(logger, logging.Logger) and logger.level:
            yield logger
