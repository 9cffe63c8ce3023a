"""Videos: files, generated ones, and the store of their frames."""

from selfsup.data.video.moving import Moving
from selfsup.data.video.sources import Stored, Videos

__all__ = ["Moving", "Stored", "Videos"]
