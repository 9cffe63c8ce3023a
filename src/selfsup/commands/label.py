"""`label`: a label for every sample from a few, or a page to give the few. Imports torch only when it is called."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from selfsup.base.checks import check_new_file, check_numbers
from selfsup.base.notes import say
from selfsup.base.paths import expanded, user_path
from selfsup.base.printing import Printable
from selfsup.commands.given import Data, RunName, Target
from selfsup.commands.suggest import Sample, to_samples, without_labels
from selfsup.errors import UserError, need
from selfsup.run import Run

if TYPE_CHECKING:
    from socket import socket

    from selfsup.labelling.assign import Assigned, Doubt
    from selfsup.labelling.pool import Pool
    from selfsup.source import Source

CLIP_SIDE = 320  # pixels of a clip on the page: larger ones take a second to be made
SHOWN = 10  # doubtful labels and suggestions in the terminal; JSON has all


@dataclass(frozen=True)
class Doubtful:
    """A sample whose given label the other labels contradict."""

    number: int
    path: str
    given: str
    instead: str
    confidence: float


@dataclass(frozen=True, repr=False)
class Labelled(Printable):
    """What `label` wrote to `path`, a row for each sample; `labels` and `confidence` are its columns (None: unsure).

    `tested` given labels were held out, of which `right` were predicted; `sure` of them with a confidence of at least
    `unsure_below`, of which `sure_right` were predicted. `status` counts the samples; `classes`, those of each label.
    `stray`: classes whose only given label seems to lie among samples of other classes.
    """

    path: Path
    given: int
    status: Mapping[str, int]
    classes: Mapping[str, int]
    unsure_below: float
    tested: int
    right: int
    sure: int
    sure_right: int
    doubtful: tuple[Doubtful, ...]
    stray: tuple[str, ...]
    next: tuple[Sample, ...]
    labels: tuple[str | None, ...]
    confidence: tuple[float, ...]

    def as_json(self) -> dict[str, Any]:
        """Return plain values, without the rows of the file."""
        values = asdict(self) | {"path": str(self.path)}
        return {key: value for key, value in values.items() if key not in ("labels", "confidence")}

    def __rich__(self) -> Group:
        from selfsup.labelling.table import printable

        labelled, total = sum(self.classes.values()), sum(self.status.values())
        counts = ", ".join(f"{count:,} {name}" for name, count in self.status.items())
        lines = [f"{labelled:,} of {total:,} samples have a label ({counts}): {self.path}"]
        lines += [f"A confidence below {self.unsure_below:g} is unsure. {self._reliability()}"]
        if self.status.get("unsure") and not self.status.get("propagated"):
            lines += ["No sample but the given ones is sure: label more, such as those below, and try again."]
        if self.stray:
            which = "labels of" if len(self.stray) > 1 else "label of"
            which += f" {', '.join(map(repr, self.stray))}"
            lines += [f"The only {which} may lie among samples of other classes: look there, or give another one."]
        parts: list[Any] = [Text("\n".join(lines)), _table("labels", ("class", "samples"), self.classes.items())]
        if self.doubtful:
            rows = [(printable(d.path), d.given, d.instead, f"{d.confidence:.0%}") for d in self.doubtful[:SHOWN]]
            title = f"given labels that the others contradict; check them{_of(len(self.doubtful))}"
            parts.append(_table(title, ("path", "given", "rather", "confidence"), rows))
        if self.next:
            wanted = [(printable(sample.path), sample.why) for sample in self.next[:SHOWN]]
            parts.append(_table(f"to label next{_of(len(self.next))}", ("path", "why"), wanted))
        return Group(*parts)

    def _reliability(self) -> str:
        if not self.tested:
            return "It could not be checked: a second label of some class is needed for that."
        return (
            f"Checked by cross-validation: of {self.tested:,} given labels that were held out, {self.right:,} were "
            f"predicted ({self.right / self.tested:.0%}); of the {self.sure:,} above the limit, {self.sure_right:,}."
        )


def label(
    run: RunName,
    data: Data,
    /,
    *,
    labels: str | None = None,
    out: Target | None = None,
    unsure_below: float = 0.7,
    n: int = 15,
    port: int = 0,
    browser: bool = True,
    seed: int = 0,
    device: str = "auto",
    quiet: bool = False,
) -> Labelled | None:
    """Label every sample from a few labels, or open a page on which to give the few.

    The labels spread over a graph of the nearest neighbours of all samples. Each label comes with a confidence that
    was checked on given labels that were held out; below a limit a sample is unsure and has no label. Without --labels
    a page is served, on this computer alone, where a key or a click labels a sample; each label is saved at once, and
    a file that is there is continued. See docs/labelling.md.

    Args:
        run: A finished run folder.
        data: The samples, with or without labels: any that the data bring are ignored.
        labels: The few labels: 'folders', a CSV file (path,label) or an .npz file with y.
        out: The CSV file to write; by default all.csv, or labels.csv for the page.
        unsure_below: The confidence below which a sample has no label, from 0 to 1.
        n: How many samples to suggest for labelling next; at least 1.
        port: The port of the page; 0 takes a free one.
        browser: Open the page in a browser.
        seed: Where the clustering of the suggestions starts; at least 0.
        device: Where to compute the features: auto, cpu, cuda or mps.
        quiet: Hide progress.

    Raises:
        UserError: For a run or data that cannot be opened, labels of other samples or of one class only, labels that
            are not classes, or a port in use.
        RunFailed: If the file cannot be written.
    """
    from selfsup.data.open import open_data
    from selfsup.labelling.assign import check_classes
    from selfsup.labelling.pool import Pool
    from selfsup.labelling.table import check_nothing_lost, write_table
    from selfsup.train.device import make_fabric

    check_numbers(unsure_below=unsure_below, n=n, port=port, seed=seed)
    labels = None if labels is None else expanded(labels, "--labels")
    path = user_path(out if out is not None else "labels.csv" if labels is None else "all.csv")
    check_new_file(path)
    if labels is None:
        for module in ("starlette", "uvicorn"):
            need(module, "label")
    elif os.path.exists(labels) and path.exists() and os.path.samefile(labels, path):
        raise UserError(f"{path} holds the given labels, which would be lost: give another --out")
    else:
        check_nothing_lost(path, None)
    run = run if isinstance(run, Run) else Run(run)
    source = open_data(data, labels)
    if labels is not None:
        assert source.labels is not None
        check_classes(source.labels, labels)
    where = make_fabric(device, "float32").device
    if labels is None:
        from selfsup.base.writing import only_here
        from selfsup.labelling.page.server import listen

        # first of all: features may take long; one server writes a file
        with listen(port) as listener, only_here(path.absolute().with_name(f".{path.name}.open")):
            pool = Pool.of(run, without_labels(source), where, quiet)
            _open_page(pool, path, n, unsure_below, seed, listener, browser)
        return None
    pool = Pool.of(run, source, where, quiet)
    assert source.labels is not None
    known = pool.known()
    names = source.labels.classes
    assigned = pool.assign(known, len(names), unsure_below)
    if lost := [names[place] for place in sorted(pool.unread(known))]:
        say(f"no other sample gets the label {' or '.join(map(repr, lost))}: the samples that have it cannot be read")
    chosen, _ = pool.next(known, n, "auto", seed, assigned)
    status, found, confidence = _rows(pool, assigned, known, names)
    columns = ("path", "label", "confidence", "status")
    rows = ((source.path(i), found[i] or "", f"{confidence[i]:.4f}", status[i]) for i in range(len(source)))
    write_table(path, columns, rows)
    check = assigned.calibration
    return Labelled(
        path=path,
        given=len(known),
        status=dict(Counter(status)),
        classes=dict(Counter(name for name in found if name).most_common()),
        unsure_below=unsure_below,
        tested=check.tested,
        right=check.right,
        sure=check.sure,
        sure_right=check.sure_right,
        doubtful=tuple(_doubtful(pool, doubt, names) for doubt in assigned.doubts),
        stray=tuple(names[place] for place in assigned.stray),
        next=to_samples(pool, chosen, assigned, names),
        labels=tuple(found),
        confidence=tuple(confidence),
    )


def _doubtful(pool: Pool, doubt: Doubt, names: tuple[str, ...]) -> Doubtful:
    number = int(pool.numbers[doubt.row])
    return Doubtful(number, pool.source.path(number), names[doubt.given], names[doubt.instead], doubt.confidence)


def _rows(
    pool: Pool, assigned: Assigned, known: Mapping[int, int], names: tuple[str, ...]
) -> tuple[list[str], list[str | None], list[float]]:
    """Return status, label and confidence of every sample of the source."""
    doubted = {doubt.row for doubt in assigned.doubts}
    status, found, confidence = [], list[str | None](), []
    for number, row in enumerate(pool.row_of.tolist()):
        name = names[known[number]] if number in known else None
        if row < 0:  # a label that was given stands, whether or not the sample can be read
            status.append("unreadable" if name is None else "given")
        elif name is not None:
            status.append("doubtful" if row in doubted else "given")
        else:
            name = names[assigned.ids[row]] if assigned.ids[row] >= 0 else None
            status.append("unsure" if name is None else "propagated")
        found.append(name)
        confidence.append(float(assigned.confidence[row]) if row >= 0 else float(name is not None))
    return status, found, confidence


def _of(count: int) -> str:
    return f": the first {SHOWN} of {count:,}" if count > SHOWN else ""


def _table(title: str, head: tuple[str, ...], rows: Any) -> Table:
    table = Table(title=Text(title), title_justify="left")
    for name in head:
        table.add_column(name, overflow="fold", justify="right" if name in ("samples", "confidence") else "left")
    for row in rows:
        table.add_row(*(Text(f"{cell:,}" if isinstance(cell, int) else cell) for cell in row))
    return table


def _shown(source: Source, number: int, side: int) -> tuple[bytes, str] | str | None:
    """Return what the page shows of a sample: an image or an animation with its MIME type, a text, None if broken.

    Of a sound, its spectrogram, and for a `side` of 0 itself.
    """
    import io

    from PIL import Image

    from selfsup.reports.finding import read_sample
    from selfsup.reports.media import player, spectrogram, wav
    from selfsup.spec import Clip, Waveform
    from selfsup.spec.media import MOVING

    side = min(side, CLIP_SIDE) if source.kind in MOVING else side
    sample = read_sample(source, number, side, 5000 if side > 200 else 150)
    if isinstance(sample, Clip):
        return player(sample, side), "image/webp"
    if isinstance(sample, Waveform):
        if not side:
            return wav(sample), "audio/wav"
        sample = spectrogram(sample)
    if not isinstance(sample, Image.Image):
        return sample
    buffer = io.BytesIO()
    sample.save(buffer, "png")
    return buffer.getvalue(), "image/png"


def _open_page(pool: Pool, path: Path, n: int, unsure_below: float, seed: int, listener: socket, browser: bool) -> None:
    """Serve the page until it is stopped."""
    import sys
    from functools import partial

    from selfsup.labelling.page.server import serve
    from selfsup.labelling.session import Session

    def ready(address: str) -> None:
        print(f"{address}\nlabels go to {path}; Ctrl-C ends this", file=sys.stderr, flush=True)
        if browser and (sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            import webbrowser

            webbrowser.open(address)

    session = Session(pool, path, n, unsure_below, seed)
    serve(session, partial(_shown, pool.source), listener, ready)
    print(f"{session.count:,} labels in {path}; for all samples: --labels {path} -o all.csv", file=sys.stderr)
