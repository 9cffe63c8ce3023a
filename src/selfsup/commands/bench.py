"""`bench`: how fast this machine makes views of these images. Imports torch only when it is called."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from selfsup.base.checks import check_numbers
from selfsup.base.printing import Printable
from selfsup.commands.given import Data
from selfsup.errors import unknown


@dataclass(frozen=True, repr=False)
class Bench(Printable):
    """Images a second on one core and on all, and the fraction of the time that goes into reading files.

    `cores_needed`: how many keep a training step from waiting, if its length was given.
    """

    preset: str
    views: str
    size: int
    engine: str
    images_per_second: float
    milliseconds: float
    decode_share: float
    cores: int
    with_all_cores: float
    skipped: int
    cores_needed: int | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the same as plain values."""
        return asdict(self)

    def __rich__(self) -> str:
        text = (
            f"{self.preset}, {self.views} views at {self.size} pixels, {self.engine}: "
            f"{self.images_per_second:,.0f} images/s on one core "
            f"({self.milliseconds:.2f} ms each, {self.decode_share:.0%} of it decoding), "
            f"{self.with_all_cores:,.0f} images/s on {self.cores} cores"
        )
        skipped = f"; {self.skipped:,} could not be read" if self.skipped else ""
        needed = f"\n{self.cores_needed} cores are needed for a step of that length" if self.cores_needed else ""
        return text + skipped + needed


def bench(
    what: Literal["views"],
    data: Data,
    /,
    *,
    preset: str = "simclr",
    size: int | None = None,
    views: str | None = None,
    batch_size: int = 64,
    step: float | None = None,
) -> Bench:
    """Measure how fast your own images become augmented views on this machine; takes six seconds.

    Args:
        what: The benchmark to run: views.
        data: A folder of images, a list file, an .npz file, a name or an array.
        preset: simclr, mocov2, byol, swav, dino, mae, lejepa or vicreg.
        size: Pixels per side; by default the data's own, at most 224.
        views: The family of views: natural (the default), overhead or document.
        batch_size: Samples per batch.
        step: Seconds that one training step on such a batch takes: shows how many cores keep up with it.

    Raises:
        UserError: For an unknown preset or family of views, or data that cannot be opened.
    """
    from selfsup.data.open import open_data
    from selfsup.views.image.bench import bench as measure

    if what != "views":
        raise unknown("benchmark", what, ["views"])
    check_numbers(size=size, batch_size=batch_size, minutes=step)
    return Bench(**measure(open_data(data), preset, size, views, batch_size, step))
