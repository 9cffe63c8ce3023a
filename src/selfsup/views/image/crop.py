"""The description of the views of an image, without code that draws or computes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from selfsup.errors import UserError, unknown


@dataclass(frozen=True)
class Crop:
    """One group of `count` square views of `size` pixels. The steps run in the order in which they stand here.

    Place: `scale` (fraction of the area) and `ratio` (width / height) as in torchvision's RandomResizedCrop, out of the
    middle of the image, `centre` times each side. Without a scale it is the centre square, `centre` times the shorter
    side, shifted by up to `pad` view pixels over black (RotNet), which begins beyond that square, on all four sides of
    a landscape too; or the `whole` image, squeezed into a square. `grid` cuts that square, random or not, into
    grid × grid cells with `gap` view pixels between two patches, each patch anywhere in its cell; `count` is then
    grid².

    Warp: rotation by up to `degrees` to either side, `shear` likewise (degrees by which columns lean), `translate` in
    each direction by up to this fraction of the side; `elastic` is the standard deviation, in view pixels, of a smooth
    random displacement (white noise under a window of a seventh of the side, as in Simard et al., 2003). All are drawn
    uniformly and are one sampling of the image, so that the view shows what lies beside the crop. Beyond the edge the
    image is reflected, or with `pad` black beyond that square: no corner gives an angle away. Then `flip` and
    `vertical_flip`: probabilities of mirroring; `quarter_turns`: rotation by 0°, 90°, 180° or 270°, each as likely,
    exact: views are square, and their pixels only change places. Patches of a grid have `flip` alone.

    Appearance: `jitter` are the strengths (brightness, contrast, saturation, hue) of torchvision's ColorJitter, in a
    random order, with probability `jitter_p`; then `gray`, `blur` and `solarize` with their probabilities; the last two
    may be tuples, one value a view. `sigma` is the range of the blur in pixels of the view; solarize inverts what is
    at least half bright. Images of other than 3 channels have no saturation, hue or gray. Last, `noise`: Gaussian, in
    each pixel and channel on its own; its standard deviation is drawn between 0 and this fraction of the range.

    Raises `UserError` for values out of their range: fractions and probabilities from 0 to 1, degrees to 180, shear to
    60, noise to 1, elastic to a sixteenth of the side, from where the displacement would fold the image.
    """

    size: int
    count: int = 1
    scale: tuple[float, float] | None = None
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    centre: float = 1.0
    whole: bool = False
    pad: int = 0
    grid: int = 1
    gap: int = 0
    bicubic: bool = False
    degrees: float = 0.0
    shear: float = 0.0
    translate: float = 0.0
    elastic: float = 0.0
    flip: float = 0.0
    vertical_flip: float = 0.0
    quarter_turns: bool = False
    jitter: tuple[float, float, float, float] | None = None
    jitter_p: float = 0.8
    gray: float = 0.0
    blur: float | tuple[float, ...] = 0.0
    sigma: tuple[float, float] = (0.1, 2.0)
    solarize: float | tuple[float, ...] = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        if self.size < 1 or self.count < 1:
            raise UserError(
                f"a view needs at least one pixel and a group one view: size {self.size}, count {self.count}"
            )
        if self.grid > 1 and self.count != self.grid**2:
            raise UserError(f"a {self.grid}×{self.grid} grid has {self.grid**2} patches, not {self.count}")
        if self.scale is not None and not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise UserError(f"scale is a range of fractions of the area, 0 < low ≤ high ≤ 1, not {self.scale}")
        if self.whole and (self.scale is not None or self.pad or self.centre != 1):
            raise UserError("the whole image is not cropped or shifted: leave scale, pad and centre out")
        for name in ("blur", "solarize"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != self.count:
                raise UserError(f"{name} gives {len(value)} probabilities for {self.count} views")
        for name, most in (("degrees", 180), ("shear", 60), ("translate", 1), ("elastic", self.size / 16),
                           ("flip", 1), ("vertical_flip", 1), ("noise", 1)):  # fmt: skip
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise UserError(f"{name} of a view of {self.size} pixels is from 0 to {most:g}, not {value:g}")
        if not isinstance(self.quarter_turns, bool):
            raise UserError(f"quarter_turns is True or False, each turn being as likely, not {self.quarter_turns!r}")
        if self.grid > 1 and (self.warped or self.rotated):
            raise UserError("patches of a grid are mirrored left and right at most: leave their other geometry out")

    @property
    def plain(self) -> bool:
        """Whether the views are crops alone, without any change of appearance."""
        changes = (self.jitter, self.gray, self.noise, *self.each("blur"), *self.each("solarize"))
        return not any(changes)

    @property
    def warped(self) -> bool:
        """Whether the views are sampled at other places than those of a grid of rows and columns."""
        return any((self.degrees, self.shear, self.translate, self.elastic))

    @property
    def rotated(self) -> bool:
        """Whether the pixels of finished views change places, beyond mirroring left and right."""
        return self.quarter_turns or self.vertical_flip > 0

    def each(self, name: str) -> tuple[float, ...]:
        """Return the probability `blur` or `solarize` of each view."""
        value = getattr(self, name)
        return value if isinstance(value, tuple) else (value,) * self.count


def centre(size: int) -> Crop:
    """Return the centre crop of evaluation: the shorter side resized to size / 0.875 (to size up to 64 pixels)."""
    return Crop(size, centre=size / int(size / 0.875) if size > 64 else 1.0)


def patches(size: int, grid: int, gap: int, scale: tuple[float, float] | None = None) -> Crop:
    """Return a grid of patches in reading order, each shifted at random within its cell of size + gap pixels."""
    return Crop(size, count=grid**2, grid=grid, gap=gap, scale=scale)


PRESETS = ("simclr", "mocov2", "byol", "swav", "dino", "mae", "lejepa", "vicreg")
_WEAK = (0.4, 0.4, 0.2, 0.1)
_STRONG = (0.8, 0.8, 0.8, 0.2)


def preset(name: str, size: int = 224, patch: int = 0, scale: float | None = None) -> dict[str, Crop]:
    """Return the groups of a published method: `x`, and `local` for multi-crop; local sizes scale with `size`.

    With the `patch` of a transformer, local crops consist of whole patches, at least two a side. `scale` is the
    smallest fraction of the image's area that `x` shows, in place of the published one.

    - simclr: Chen et al., 2020, appendix A; byol: Grill et al., 2020, appendix B; swav: Caron et al., 2020; mae: He et
      al., 2022; vicreg: Bardes et al., 2022, appendix (symmetric), solarizing after the blur as BYOL does; mocov2: Chen
      et al., 2020b; dino: Caron et al., 2021 (ViT); lejepa: Balestriero & LeCun, 2025 (2 global, 6 local).
    - Images of up to 64 pixels: no blur in any preset and half of SimCLR's strength (its appendix B.9).
    - Deliberate deviation: the blur is a true Gaussian, cut at 3 sigma, whatever kernel size the paper's code
      uses, and sigma stays in pixels of the view.

    Raises `UserError` for another name.
    """
    base = Crop(size, flip=0.5, gray=0.2, blur=0.5)
    local, smallest = round(size * 96 / 224), min(size, 8)  # encoders of small images need 8 pixels
    if name == "simclr":
        strength = 1.0 if size > 64 else 0.5
        jitter = (0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength)
        groups = {"x": replace(base, count=2, scale=(0.08, 1), jitter=jitter)}
    elif name == "mocov2":
        groups = {"x": replace(base, count=2, scale=(0.2, 1), jitter=(0.4, 0.4, 0.4, 0.1))}
    elif name == "byol":
        weak = replace(base, bicubic=True, jitter=_WEAK)
        groups = {"x": replace(weak, count=2, scale=(0.08, 1), blur=(1.0, 0.1), solarize=(0.0, 0.2))}
    elif name == "vicreg":
        groups = {"x": replace(base, count=2, scale=(0.08, 1), bicubic=True, jitter=_WEAK, solarize=0.1)}
    elif name == "swav":
        strong = replace(base, jitter=_STRONG)
        groups = {
            "x": replace(strong, count=2, scale=(0.14, 1)),
            "local": replace(strong, size=max(local, smallest), count=6, scale=(0.05, 0.14)),
        }
    elif name == "dino":
        weak = replace(base, bicubic=True, jitter=_WEAK)
        groups = {
            "x": replace(weak, count=2, scale=(0.4, 1), blur=(1.0, 0.1), solarize=(0.0, 0.2)),
            "local": replace(weak, size=max(local, smallest), count=8, scale=(0.05, 0.4)),
        }
    elif name == "lejepa":
        weak = replace(base, jitter=_WEAK, solarize=0.2)
        groups = {
            "x": replace(weak, count=2, scale=(0.3, 1)),
            "local": replace(weak, size=max(round(size * 98 / 224), smallest), count=6, scale=(0.05, 0.3)),
        }
    elif name == "mae":
        groups = {"x": Crop(size, scale=(0.2, 1), bicubic=True, flip=0.5)}
    else:
        raise unknown("preset of views", name, PRESETS)
    if size <= 64:
        groups = {key: replace(crop, blur=0.0) for key, crop in groups.items()}
    if scale is not None:
        groups["x"] = replace(groups["x"], scale=(scale, 1))
    if patch and "local" in groups:
        small = max(2, round(groups["local"].size / patch)) * patch
        groups["local"] = replace(groups["local"], size=small)
    return groups


def multi_crop(size: int, local: int, patch: int = 0, limit: float = 0.4, name: str = "dino") -> dict[str, Crop]:
    """Return a preset's groups with `local` small crops (0: none): whole patches for a transformer, two a side or more.

    A large crop shows at least the fraction `limit` of the image's area, a small one 0.05 to `limit`. Raises
    `UserError` for a single small crop, whose batch would have another shape.
    """
    if local < 0 or local == 1:
        raise UserError(f"--num-local-crops is 0 or at least 2 small crops, not {local}")
    groups = preset(name, size, patch)
    large = {"x": replace(groups["x"], scale=(limit, 1))}
    return large | {"local": replace(groups["local"], count=local, scale=(0.05, limit))} if local else large
