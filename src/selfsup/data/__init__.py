"""Sources of samples and their labels: each kind of data, and how a user names them."""

from selfsup.data.image import Arrays, Files
from selfsup.data.kinds import make_spec, open_query, spec_options, split_options
from selfsup.data.open import open_data
from selfsup.data.text import Texts
from selfsup.source import Broken, Labels, Source

__all__ = [
    "Arrays", "Broken", "Files", "Labels", "Source", "Texts", "make_spec", "open_data", "open_query", "spec_options",
    "split_options",
]  # fmt: skip
