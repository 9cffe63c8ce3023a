"""What a command is given: in Python any of these, from the command line text, which is all that tyro has to know."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from torch import nn

    from selfsup.data.labels import LabelsGiven
    from selfsup.data.open import DataGiven
    from selfsup.run import Run
    from selfsup.task import Task

    Data = DataGiven
    Embeddings = str | os.PathLike[str]
    EncoderGiven = str | nn.Module
    Names = str | Sequence[str]
    Target = str | os.PathLike[str]
    RunName: TypeAlias = Target | Run  # said, as mypy sees selfsup.run in a circle of imports
    TaskName = str | type[Task]
else:
    Data = Embeddings = EncoderGiven = LabelsGiven = Names = RunName = Target = TaskName = str

__all__ = ["Data", "Embeddings", "EncoderGiven", "LabelsGiven", "Names", "RunName", "Target", "TaskName"]
