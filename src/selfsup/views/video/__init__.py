"""Views of videos: which frames, and one crop for all frames of a clip; and patches of what is tracked."""

from selfsup.views.video.patches import PatchViews
from selfsup.views.video.views import ClipViews, Cut

__all__ = ["ClipViews", "Cut", "PatchViews"]
