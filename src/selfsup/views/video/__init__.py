"""Views of videos: which frames, and one crop for all frames of a clip."""

from selfsup.views.video.views import ClipViews, Cut

__all__ = ["ClipViews", "Cut"]
