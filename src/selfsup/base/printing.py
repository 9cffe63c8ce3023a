"""How results appear: as text in a terminal, as a table in a notebook."""

from __future__ import annotations

from rich.console import Console, RenderableType
from rich.jupyter import JupyterMixin

WIDTH = 120


class Printable(JupyterMixin):
    """A result that is shown as `__rich__` says, by `print` and in a notebook alike."""

    def __rich__(self) -> RenderableType:
        """Return the text or table to show."""
        raise TypeError(f"{type(self).__name__} does not say what it looks like")

    def __str__(self) -> str:
        console = Console(width=WIDTH, color_system=None, legacy_windows=False, markup=False, emoji=False)
        shown = self.__rich__()
        with console.capture() as capture:  # lines of text are not wrapped: some are commands, or code to copy
            console.print(shown, highlight=False, soft_wrap=isinstance(shown, str))
        return capture.get().rstrip()
