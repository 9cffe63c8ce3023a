"""Tracks of what moves, the patches that are cut along them, and the task that learns from them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from selfsup.data.video import Moving
from selfsup.data.video.tracks import find_tracks
from selfsup.encoders import build_encoder
from selfsup.errors import UserError
from selfsup.spec import ClipSpec
from selfsup.tasks.video.tracking import Tracking
from selfsup.views.image import Crop
from selfsup.views.video import PatchViews

SPEC = ClipSpec.of(48, 3, frames=4, fps=10.0)
VIEWS = PatchViews(SPEC, Crop(16, flip=0.5), gap=8)


def test_known_tracks_are_where_the_sprites_are_seen() -> None:
    source = Moving("moving", 16)
    for index in range(16):
        tracks = source.tracks(index, 10)
        assert (tracks.frames[:, 1] - tracks.frames[:, 0] == 10).all()
        for window, k in zip(*np.nonzero(np.isfinite(tracks.boxes).all((2, 3))), strict=True):
            for mask, (top, left, side) in zip(
                source.masks(index, tracks.frames[window]), tracks.boxes[window, k], strict=True
            ):
                rows, columns = np.nonzero(mask == k + 1)
                assert len(rows), "it is not hidden"
                assert top - 1 <= rows.min() <= rows.max() <= top + side + 1
                assert left - 1 <= columns.min() <= columns.max() <= left + side + 1
    assert (source.tracks(0, 31).frames == [[0, 31]]).all()
    assert not len(source.tracks(0, 32).frames), "the video is not that long"


def test_what_is_found_in_the_frames_is_where_the_sprites_are() -> None:
    pytest.importorskip("cv2")
    source, gap, near, count = Moving("moving:object", 40), 8, 0, 0
    for index in range(40):
        found = find_tracks(lambda numbers, i=index: source.frames(i, numbers), source.extent(index), gap)
        scene = source.scene(index)
        for window, k in zip(*np.nonzero(np.isfinite(found.boxes).all((2, 3))), strict=True):
            centres = found.boxes[window, k, :, :2] + found.boxes[window, k, :, 2:] / 2
            frames = found.frames[window]
            off = np.linalg.norm(centres / source.side - scene.centre[0, frames], axis=1) / scene.size[0, frames]
            near += bool((off < 0.6).all())  # the patch's centre is in the sprite, in both frames
            count += 1
    assert count >= 20
    assert near > 0.85 * count


def test_a_camera_that_moves_is_not_a_thing() -> None:
    pytest.importorskip("cv2")
    still = Moving("moving", 1).frames(0, np.array([0]))[0]
    pans = np.stack([still[2 * t : 2 * t + 50, t : t + 50] for t in range(11)])
    assert find_tracks(lambda numbers: pans[numbers], len(pans), 10).counts().sum() == 0
    plain = np.zeros((12, 40, 40, 3), np.uint8)
    assert find_tracks(lambda numbers: plain[numbers], 12, 10).counts().sum() == 0, "no corners"


def test_patches_are_functions_of_seed_epoch_and_index() -> None:
    source = Moving("moving", 32)
    whole = VIEWS.fetch(source, np.arange(8), 1, 2)
    assert whole.batch["x"].shape == (8, 2, 2, 3, 16, 16)
    apart = [VIEWS.fetch(source, np.array([index]), 1, 2).batch["x"][0] for index in range(8)]
    assert torch.equal(whole.batch["x"], torch.stack(apart))
    other = VIEWS.fetch(source, np.arange(8), 1, 3).batch["x"]
    assert not torch.equal(whole.batch["x"], other)


def test_a_patch_shows_the_sprite_in_both_frames() -> None:
    """The colours of a sprite's two patches are nearer to each other than to those of the other sprite."""
    source = Moving("moving", 64)
    x = VIEWS.finish(VIEWS.fetch(source, np.arange(64), 0, 0).batch)["x"][..., 4:12, 4:12].mean((4, 5))  # (B, 2, 2, C)
    own = (x[:, :, 0] - x[:, :, 1]).norm(dim=2)
    other = (x[:, :, 0] - x[:, :, 1].flip(1)).norm(dim=2)
    assert (own < other).float().mean() > 0.8


def test_a_video_with_too_few_things_is_replaced_and_counted() -> None:
    few = PatchViews(SPEC, Crop(16), gap=8, tracks=3)
    source = Moving("moving", 32)
    counts = [source.conform(SPEC).tracks(index, 8).counts().max() for index in range(32)]
    assert 0 < sum(count < 3 for count in counts) < 32
    fetched = few.fetch(source, np.arange(32), 0, 0)
    left_out = {
        index for index, reason in fetched.skipped if reason == "fewer than 3 things that move through 8 frames"
    }
    assert left_out >= {index for index, count in enumerate(counts) if count < 3}
    assert not left_out & set(fetched.batch["index"].tolist())


@pytest.mark.parametrize("progress", [0.0, 0.9])
def test_the_loss_is_that_of_a_loop_over_anchors(progress: float) -> None:
    torch.manual_seed(0)
    task = Tracking(build_encoder("convnet", SPEC), num_negatives=3).eval()
    task.progress = progress
    batch = {"x": torch.randn(5, 2, 2, 3, 16, 16), "index": torch.arange(5)}
    z = task.embed(batch["x"].flatten(0, 2)).view(10, 2, -1).detach()
    wanted = []
    for a, b in ((0, 1), (1, 0)):
        inside, outside = [], []
        for i in range(10):
            hinge = [max(0.0, float(task.margin - z[i, a] @ z[i, b] + z[i, a] @ z[j, b])) for j in range(10)]
            inside.append(hinge[i ^ 1])
            others = [hinge[j] for j in range(10) if j // 2 != i // 2]
            outside += others if progress < task.hard_from else sorted(others)[-3:]
        wanted.append((np.mean(inside) + np.mean(outside)) / 2)
    torch.testing.assert_close(task.loss(batch).value.item(), float(np.mean(wanted)), rtol=1e-4, atol=1e-5)


def test_tracks_of_files_are_found_once_and_again_where_they_are_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cv2")
    from selfsup.data.open import open_data
    from selfsup.data.video import store
    from support.videos import write_video

    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path / "cache"))
    source = Moving("moving", 2)
    for index in range(2):
        write_video(tmp_path / "videos" / f"{index}.mp4", source.frames(index, np.arange(24)))
    videos = open_data(str(tmp_path / "videos"))
    spec = videos.spec(size=48)
    stored = videos.conform(spec)
    store.store_tracks(stored.files[1], 8)
    asked: list[int] = []
    with monkeypatch.context() as patch:

        def counted(read: Any, length: int, gap: int) -> Any:
            asked.append(length)
            return find_tracks(read, length, gap)

        patch.setattr(store, "find_tracks", counted)
        Tracking(build_encoder("convnet", spec), gap=8).samples(videos)
    assert asked == [24], "of the video whose tracks are not there"
    kept = store.tracks_path(stored.files[0], 8)
    with monkeypatch.context() as patch:
        patch.setattr(store, "find_tracks", lambda *_: pytest.fail("found again"))
        found = stored.tracks(0, 8)
        store.stored_tracks.cache_clear()
        np.testing.assert_array_equal(stored.tracks(0, 8).boxes, found.boxes)
    store.stored_tracks.cache_clear()
    kept.write_bytes(kept.read_bytes()[:50])
    np.testing.assert_array_equal(stored.tracks(0, 8).boxes, found.boxes)


def test_without_opencv_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(UserError, match=r"pip install 'selfsup\[video\]'"):
        find_tracks(lambda numbers: np.zeros((len(numbers), 8, 8, 3), np.uint8), 20, 8)
