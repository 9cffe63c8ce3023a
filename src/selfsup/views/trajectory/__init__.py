"""Views of episodes: observations, the steps between them, and what several cameras see at once."""

from selfsup.views.trajectory.grasp import GraspViews
from selfsup.views.trajectory.near import NearViews
from selfsup.views.trajectory.observations import ObservationViews
from selfsup.views.trajectory.sync import SyncViews
from selfsup.views.trajectory.transitions import TransitionViews

__all__ = ["GraspViews", "NearViews", "ObservationViews", "SyncViews", "TransitionViews"]
