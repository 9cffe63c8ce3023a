"""FINO (Gardès et al., 2026): what is known of samples for free says what to keep, and what to suppress."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from selfsup.base.options import names_in
from selfsup.errors import UserError
from selfsup.source import Source
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.tasks.image.metadata_heads import Heads, of_table
from selfsup.tasks.parts import Option, build_part, check_source, image_views, loss_of_part, lr_of_part, resolve_pretext
from selfsup.views.image import Crop, ImageViews
from selfsup.views.image.merged import MergedViews, part_of


class Metadata(Task):
    """Learn a pretext task, predict some columns of a table, and be of no use for others (Gardès et al., 2026).

    The columns of `keep` (site, organ) are predicted from the representation by a linear layer each, those of
    `suppress` (scanner, date) by an MLP each, whose gradient reaches the encoder reversed, times λ = `suppress_weight`
    · (2 / (1 + exp(-10 p)) - 1) at progress p (Ganin & Lempitsky, 2015, section 4), so that these heads first learn
    what there is to suppress. Names have the cross-entropy, numbers the squared error in units of their variance; the
    losses of the columns of one kind are averaged. Samples of which a column is not known are left out of its loss.
    Chance is that of the pretext, plus `keep_weight` times the mean chance of the columns to keep, plus that of those
    to suppress: ln of the number of names, and 1 for numbers.

    A suppressed column that goes along with what you want to know takes that with it.

    Batch: the pretext's keys, prefixed, with the default `pretext.x` (B, 2, C, H, W) float; `plain.x` (B, C, H, W)
    float; `index` (B,) int64.

    Deviations: a classifier of names in place of a contrastive loss with a bank of prototypes, any pretext task in
    place of DINO, and its own view of each sample for the columns: shifted and mirrored, with its colours.

    Args:
        table: A CSV file with the columns path and those that are named below.
        table_digest: A hash of what the table says of these samples; found by itself.
        column_names: The names of each column, none for numbers, as JSON; read off the table.
        keep: Columns to predict, separated by commas. They are names or numbers as they look like; COLUMN:names and
            COLUMN:numbers decide.
        suppress: Columns to suppress, likewise.
        keep_weight: Weight of the columns to keep, in [0, inf).
        suppress_weight: Largest weight of the reversed gradient, in [0, inf).
        hidden_dim: Width of the hidden layer of the heads of suppressed columns, in [1, inf).
        pretext: A task on images that needs no labels, by name.
        pad: Largest shift of the plain views in pixels, over black, in [0, inf).
        flip: Probability of mirroring the plain views, in [0, 1].
        options: Hyper-parameters of the pretext task.
    """

    paper = "Gardès et al., 2026"
    section = "images: metadata"
    keeps_samples = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        table: str,
        table_digest: str,
        column_names: str,
        keep: str = "",
        suppress: str = "",
        keep_weight: float = 1.0,
        suppress_weight: float = 1.0,
        hidden_dim: int = 256,
        pretext: str = "simclr",
        pad: int = 4,
        flip: float = 0.5,
        options: dict[str, Option] | None = None,
    ) -> None:
        part = build_part(pretext, encoder, options or {})
        super().__init__(part.encoder)
        self.pretext, self.name, self.table = part, pretext, table
        self.keep_weight, self.suppress_weight, self.pad, self.flip = keep_weight, suppress_weight, pad, flip
        self.asked, self.kept = names_in(keep, suppress), len(names_in(keep))
        self.heads = Heads(part.encoder.dim, json.loads(column_names), self.kept, hidden_dim)

    @classmethod
    def resolve(cls, source: Source, given: Mapping[str, Any]) -> dict[str, Any]:
        """Read the columns off the table, and take the pretext's options that depend on the data."""
        found = resolve_pretext(cls, source, given)
        if "table" not in given:
            return found
        asked = names_in(given.get("keep", ""), given.get("suppress", ""))
        if not asked:
            raise UserError("metadata needs --keep or --suppress, columns of the table, separated by commas")
        return found | of_table(source, given["table"], asked)

    def samples(self, source: Source) -> Source:
        """Return the same, after what the table says of it was read."""
        check_source("metadata", self.name, self.pretext, source)
        self.heads.read(source, self.table, self.asked)
        return source

    def views(self, spec: ImageSpec) -> MergedViews:
        """Return the pretext's views, and a plain one."""
        plain = ImageViews(spec, {"x": Crop(spec.size, pad=self.pad, flip=self.flip)})
        return MergedViews.of({"pretext": image_views(self.name, self.pretext, spec), "plain": plain})

    def guesses(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W) -> what each column is, (B, names) or (B, 1)."""
        strength = self.suppress_weight * (2 / (1 + math.exp(-10 * self.progress)) - 1)
        return self.heads(self.encoder(x), strength)

    def loss(self, batch: Batch) -> Loss:
        """Return the pretext's loss, that of the columns to keep, and that of those to suppress."""
        pretext = loss_of_part(self, self.pretext, part_of(batch, "pretext"))
        losses, chances, metrics = self.heads.losses(self.guesses(batch["plain.x"]), batch["index"])
        value, chance = pretext.value, pretext.chance
        for some, weight in ((slice(self.kept), self.keep_weight), (slice(self.kept, None), 1.0)):
            if losses[some]:
                value = value + weight * torch.stack(losses[some]).mean()
                chance = None if chance is None else chance + weight * fmean(chances[some])
        return Loss(value, {"pretext_loss": pretext.value.detach(), **metrics}, chance)

    def after_step(self) -> None:
        """Update the state of the pretext task."""
        self.pretext.after_step()

    def lr_of(self, child: str, scheduled: float, peak: float) -> float:
        """Ask the pretext task about its own children; encoder and heads have the scheduled learning rate."""
        part, _, own = child.partition(".")
        return lr_of_part(self, self.pretext, own, scheduled, peak) if part == "pretext" else scheduled

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return each plain view with what the table says of it, with `guess` also the prediction, and the pretext."""
        captions = self.heads.captions(batch["index"], self.guesses(batch["plain.x"]) if guess else ())
        rows = zip(batch["plain.x"], captions, self.pretext.panels(part_of(batch, "pretext"), guess), strict=True)
        return [[Panel(x, caption), *row] for x, caption, row in rows]
