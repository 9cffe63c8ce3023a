"""What tasks on videos ask of their encoder."""

from __future__ import annotations

from selfsup.errors import UserError


def check_frames(encoder: object) -> None:
    """Raise `UserError` for an encoder that does not represent frames one by one."""
    if not hasattr(encoder, "frames"):
        raise UserError(
            "this task compares frames: give an image encoder, which reads clips frame by frame, as convnet"
        )
