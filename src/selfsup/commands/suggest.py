"""`suggest`: which samples to label next. Imports torch only when it is called."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from selfsup.base.checks import check_new_file, check_new_image, check_numbers
from selfsup.base.paths import user_path
from selfsup.base.printing import Printable
from selfsup.commands.given import Data, RunName, Target
from selfsup.errors import UserError, unknown
from selfsup.run import Run

if TYPE_CHECKING:
    from selfsup.labelling.assign import Assigned
    from selfsup.labelling.pool import Next, Pool
    from selfsup.source import Source

COLUMNS = 5  # of the contact sheet


@dataclass(frozen=True)
class Sample:
    """A sample to label: its number in the data, its path, why it was chosen, and of a text its beginning."""

    number: int
    path: str
    why: str
    text: str = ""


@dataclass(frozen=True, repr=False)
class Suggested(Printable):
    """The samples to label, in order; `path` is the CSV file to fill in, with the `known` labels at its end."""

    samples: tuple[Sample, ...]
    strategy: str
    path: Path
    known: int
    sheet: Path | None
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the same as plain values."""
        return asdict(self) | {"path": str(self.path), "sheet": None if self.sheet is None else str(self.sheet)}

    def __rich__(self) -> Group:
        from selfsup.labelling.table import printable

        table = Table(title=Text(f"{len(self.samples):,} samples to label ({self.strategy})"), title_justify="left")
        table.add_column("", justify="right")
        table.add_column("path", overflow="fold")
        table.add_column("why")
        texts = any(sample.text for sample in self.samples)
        if texts:
            table.add_column("text", overflow="fold")
        for place, sample in enumerate(self.samples, 1):
            cells = (sample.path, sample.why, *([sample.text] if texts else []))
            table.add_row(str(place), *(Text(printable(cell)) for cell in cells))
        known = f" (the {self.known:,} known at its end)" if self.known else ""
        told = [f"Fill in the column label of {self.path}{known}, and give it to `selfsup label` as --labels."]
        told += [f"They are shown in {self.sheet}."] if self.sheet else []
        return Group(table, *map(Text, [*told, *self.notes]))


def suggest(
    run: RunName,
    data: Data,
    /,
    *,
    n: int = 15,
    labels: str | None = None,
    strategy: str = "auto",
    out: Target = "to-label.csv",
    sheet: Target | None = None,
    seed: int = 0,
    device: str = "auto",
    quiet: bool = False,
) -> Suggested:
    """Choose the samples whose labels help the most, and write a CSV file to fill in.

    These are the most typical samples of clusters without a label; once the labels predict each other well, the
    samples that they leave uncertain, as different from each other as possible. See docs/labelling.md.

    Args:
        run: A finished run folder.
        data: The samples, with or without labels: any that the data bring are ignored.
        n: How many samples to suggest; at least 1.
        labels: The labels that are known: 'folders', a CSV file (path,label) or an .npz file with y.
        strategy: typical (TypiClust), cover (ProbCover), uncertain (which needs labels), or auto.
        out: The CSV file to write: path and an empty label for each suggestion, of texts also their beginning, then the
            known labels.
        sheet: A contact sheet of the suggestions to write (.png, .jpg or .webp).
        seed: Where the clustering starts; at least 0.
        device: Where to compute the features: auto, cpu, cuda or mps.
        quiet: Hide progress.

    Raises:
        UserError: For a run or data that cannot be opened, labels of other samples, or nothing left to label.
        RunFailed: If a file cannot be written.
    """
    from selfsup.data.open import open_data
    from selfsup.labelling.assign import check_classes
    from selfsup.labelling.pool import Pool
    from selfsup.labelling.suggest import STRATEGIES
    from selfsup.labelling.table import check_nothing_lost, write_table
    from selfsup.train.device import make_fabric

    check_numbers(n=n, seed=seed)
    if strategy not in ("auto", *STRATEGIES):
        raise unknown("strategy", strategy, ("auto", *STRATEGIES))
    path, image = user_path(out), None if sheet is None else check_sheet(user_path(sheet, "--sheet"))
    check_new_file(path)
    check_nothing_lost(path, labels)
    run = run if isinstance(run, Run) else Run(run)
    source = open_data(data, labels)
    if labels is None:
        source = without_labels(source)
    else:
        assert source.labels is not None
        check_classes(source.labels, labels)
    pool = Pool.of(run, source, make_fabric(device, "float32").device, quiet)
    known = pool.known()
    chosen, assigned = pool.next(known, n, strategy, seed)
    if not chosen.suggestions:
        raise UserError(f"every readable sample of {source.name} has a label, so none is left to suggest")
    names = source.labels.classes if source.labels else ()
    samples = to_samples(pool, chosen, assigned, names)
    notes = list(chosen.notes)
    if len(samples) < n:
        notes.append(f"All {len(samples):,} samples that can be read and have no label are suggested, not {n:,}.")
    rows = [(sample.path, "", sample.text) for sample in samples]
    rows += [(source.path(number), names[name], beginning(source, number)) for number, name in known.items()]
    columns = ("path", "label", "text") if source.kind == "text" else ("path", "label")
    write_table(path, columns, (row[: len(columns)] for row in rows))
    if image is not None:
        draw(image, source, samples)
    return Suggested(samples, chosen.strategy, path, len(known), image, tuple(notes))


def to_samples(pool: Pool, chosen: Next, assigned: Assigned | None, names: tuple[str, ...]) -> tuple[Sample, ...]:
    """Return the suggestions as they are shown."""
    source = pool.source
    return tuple(
        Sample(
            number,
            source.path(number),
            why(chosen.strategy, number, stands_for, pool.row_of, assigned, names),
            beginning(source, number),
        )
        for number, stands_for in chosen.suggestions
    )


def why(
    strategy: str, number: int, stands_for: int, row_of: Any, assigned: Assigned | None, names: tuple[str, ...]
) -> str:
    """Return in words why a sample was chosen."""
    if strategy != "uncertain" or assigned is None:
        return f"most typical of {stands_for:,}" if strategy == "typical" else f"covers {stands_for:,}"
    row = int(row_of[number])
    if assigned.guess[row] < 0:
        return "no label reaches it"
    first, second = assigned.probabilities[row].argsort()[::-1][:2].tolist()
    return f"{names[first]} or {names[second]}? {assigned.confidence[row]:.0%} sure"


def beginning(source: Source, number: int) -> str:
    """Return the beginning of a text in one line; empty for other kinds of data."""
    from selfsup.reports.finding import LETTERS

    return " ".join(source.read(number)[: 2 * LETTERS].split())[:LETTERS] if source.kind == "text" else ""


def without_labels(source: Source) -> Source:
    """Return the same samples without the labels that they brought."""
    import copy

    bare = copy.copy(source)
    bare.labels = None
    return bare


def check_sheet(path: Path) -> Path:
    """Return where a contact sheet goes; raise `UserError` if it cannot."""
    check_new_image(path, "--sheet")
    return path


def draw(path: Path, source: Source, samples: tuple[Sample, ...]) -> None:
    """Write the contact sheet."""
    from selfsup.labelling.table import printable
    from selfsup.reports.finding import read_sample
    from selfsup.reports.sheets import SIDE, save_sheet

    shown = [(read_sample(source, sample.number, SIDE, 1000), printable(sample.path)) for sample in samples]
    save_sheet(shown, path, COLUMNS)
