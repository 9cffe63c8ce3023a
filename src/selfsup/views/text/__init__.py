"""Views of texts."""

from selfsup.views.text.views import TextViews

__all__ = ["TextViews"]
