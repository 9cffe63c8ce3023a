"""Views of recordings."""

from selfsup.views.audio.views import AudioViews, Window

__all__ = ["AudioViews", "Window"]
