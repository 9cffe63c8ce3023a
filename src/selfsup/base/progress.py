"""The progress bar: speed, time left, the loss beside its chance value, the fraction of time spent waiting for data."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

HEALTH_COLOURS = {"collapsed": "bold red", "stuck": "yellow"}
WIDE = 100  # columns of a terminal, from which on there is room for a longer bar
LINE_SECONDS = 10.0  # between lines where there is no terminal
LOW_RES = 0.25  # what a step with images of half the size is taken to cost, until others have been seen


def _columns(console: Console, left: ProgressColumn) -> tuple[ProgressColumn, ...]:
    return (
        BarColumn(24 if console.width >= WIDE else 8),
        TextColumn("{task.completed}/{task.total}"),
        left,
        TextColumn("{task.description}"),
    )


class Progress:
    """A bar in a terminal or notebook; a line every ten seconds elsewhere; nothing when `quiet`.

    Up to the step `low_res` images have half the size, so that the steps after it are slower.
    """

    def __init__(self, steps: int, start: int, batch_size: int, quiet: bool = False, low_res: int = 0) -> None:
        self.steps, self.start, self.batch_size, self.quiet, self.low_res = steps, start, batch_size, quiet, low_res
        self.console = Console(stderr=True)
        self.began = self.line_at = time.monotonic()
        self.paced = start, self.began  # from which step on, and when, the pace is measured
        self.waited, self.rate, self.waiting, self.fetching = 0.0, 0.0, 0.0, False
        self.bar: RichProgress | None = None

    def __enter__(self) -> Self:
        if not self.quiet and _can_draw(self.console):
            self.bar = RichProgress(*_columns(self.console, TextColumn("{task.fields[left]}")), console=self.console)
            self.bar.start()
            self.bar_task = self.bar.add_task("", total=self.steps, completed=self.start, left="-:--")
        return self

    def __exit__(self, exc_type: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if self.bar:
            self.bar.stop()

    def wait(self, seconds: float) -> None:
        """Add time spent waiting for data. The clock starts after the first batch, which compiles the views."""
        if self.fetching:
            self.waited += seconds
        else:
            self.fetching, self.began = True, time.monotonic()
            self.paced = self.start, self.began

    def plan(self, steps: int) -> None:
        """Go on towards another number of steps."""
        self.steps = steps
        if self.bar:
            self.bar.update(self.bar_task, total=steps)

    def update(
        self, step: int, values: Mapping[str, float], chance: float | None, health: str = "", left_out: int = 0
    ) -> None:
        """Show the state after `step` steps.

        `health` is one word on the representation, `left_out` counts the samples that could not be read.
        """
        now = time.monotonic()
        elapsed, left = max(now - self.began, 1e-9), self.left(step, now)
        self.rate = (step - self.start) * self.batch_size / elapsed
        self.waiting = self.waited / elapsed
        loss, *texts = [f"{name} {value:.3f}" for name, value in values.items()]
        loss += f" (chance {chance:.3f})" if chance is not None else ""
        texts += [f"{self.rate:,.0f} samples/s", f"waiting for data {self.waiting:.0%}"]
        last = [f"[{HEALTH_COLOURS.get(health, 'green')}]{health}[/]"] if health else []
        last += [f"[yellow]{left_out:,} left out[/]"] if left_out else []
        text = " · ".join([loss, *texts, *last])
        if self.bar:
            before = (24 if self.console.width >= WIDE else 8) + 2 * len(str(self.steps)) + len(" / -:--:-- ")
            while (texts or last) and before + Text.from_markup(text).cell_len > self.console.width:
                (texts or last).pop()  # the least important ones are the last
                text = " · ".join([loss, *texts, *last])
            self.bar.update(self.bar_task, completed=step, description=text, left=_clock(left))
        elif not self.quiet and (now - self.line_at > LINE_SECONDS or step == self.steps):
            self.line_at = now
            self.console.print(
                f"step {step}/{self.steps} · {left:.0f} s left · {text}", highlight=False, soft_wrap=True
            )

    def left(self, step: int, now: float) -> float:
        """Return how many seconds the rest takes."""

        def work(to: int) -> float:  # in steps of half the size
            return min(to, self.low_res) + max(0, to - self.low_res) / LOW_RES

        first, began = self.paced
        if first < self.low_res < step:
            self.paced = step, now  # the next one knows what a step of whole images takes
        return (now - began) / max(work(step) - work(first), 1) * (work(self.steps) - work(step))


def announce(text: str, quiet: bool = False) -> None:
    """Say what the next bar is about, on a line of its own; nothing when `quiet`."""
    Console(stderr=True, markup=False, highlight=False, quiet=quiet).print(text, soft_wrap=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def _can_draw(console: Console) -> bool:
    """A bar needs a terminal, or a notebook with ipywidgets."""
    return (console.is_jupyter and find_spec("ipywidgets") is not None) or console.is_terminal


@contextmanager
def counting(
    what: str, total: int, quiet: bool = False, told: Callable[[], str] | None = None
) -> Iterator[Callable[[int], None]]:
    """Show a bar, or a line every ten seconds where there is no terminal, and yield the function that advances it.

    `told` returns what is shown beside it, such as a rate.
    """
    console = Console(stderr=True)
    bar = RichProgress(
        *_columns(console, TimeRemainingColumn(compact=True)), console=console, disable=quiet or not _can_draw(console)
    )
    began = line_at = time.monotonic()
    first = done = 0

    def advance(units: int) -> None:
        nonlocal line_at, done, first
        first = first or units
        done += units
        text = f"{what} · {told()}" if told else what
        bar.update(task, advance=units, description=text)
        now = time.monotonic()
        if bar.disable and not quiet and now - line_at > LINE_SECONDS:
            line_at = now
            left = (now - began) / max(done - first, first, 1) * (total - done)
            console.print(f"{text} · {done}/{total} · {left:.0f} s left", highlight=False, soft_wrap=True)

    with bar:
        task = bar.add_task(what, total=total)
        yield advance
        bar.update(task, completed=total)  # what could not be read does not come
