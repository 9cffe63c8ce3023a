"""The order of batches, the same for any number of workers; errors that surface; memory that stays; the cache."""

import pickle
import resource
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from selfsup.base import buffers
from selfsup.data.image import Arrays
from selfsup.data.image.cache import Decoded
from selfsup.data.open import open_data
from selfsup.errors import RunFailed, UserError
from selfsup.spec import ImageSpec
from selfsup.views.image import Crop, ImageViews, preset
from selfsup.views.image.bench import bench
from selfsup.views.image.sheet import contact_sheet
from selfsup.views.loader import batches
from selfsup.views.random import permutation


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for number in range(30):
        small = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
        small.resize((100 + number, 80)).save(root / f"{number:02}.{'jpg' if number % 3 else 'png'}")
    (root / "broken.jpg").write_bytes(b"no image")
    return open_data(str(root))


def same(a, b):
    return a.skipped == b.skipped and all(torch.equal(a.batch[key], b.batch[key]) for key in a.batch)


VIEWS = ImageViews(ImageSpec.of(32, 3), preset("dino", 32), output="float32")


def test_any_number_of_workers_gives_the_same_batches(folder):
    wanted = list(batches(folder, VIEWS, batch_size=8, seed=0, start=0, steps=9, workers=0))
    assert sum(len(fetched.skipped) for fetched in wanted) > 0
    for workers in (1, 2, 5, "auto"):
        got = list(batches(folder, VIEWS, batch_size=8, seed=0, start=0, steps=9, workers=workers))
        assert len(got) == 9
        assert all(map(same, wanted, got))
    assert all(map(same, wanted[5:], batches(folder, VIEWS, batch_size=8, seed=0, start=5, steps=9, workers=2)))


def test_the_order_is_the_permutation_without_the_incomplete_batch():
    source = Arrays(np.zeros((23, 8, 8), np.uint8))
    views = ImageViews(ImageSpec.of(8, 1), {"x": Crop(8)})
    got = torch.cat(
        [fetched.batch["index"] for fetched in batches(source, views, batch_size=5, seed=3, start=0, steps=8)]
    ).numpy()
    assert np.array_equal(got, np.concatenate([permutation(3, 0, 23)[:20], permutation(3, 1, 23)[:20]]))


def test_ranks_share_a_batch_among_them():
    source = Arrays(np.zeros((24, 8, 8), np.uint8))
    views = ImageViews(ImageSpec.of(8, 1), {"x": Crop(8)})
    whole = next(batches(source, views, batch_size=8, seed=0, start=1, steps=2)).batch["index"]
    for rank in range(2):
        assert torch.equal(
            next(batches(source, views, batch_size=8, seed=0, start=1, steps=2, rank=rank, world=2)).batch["index"],
            whole[rank::2],
        )
    with pytest.raises(UserError, match="cannot be divided"):
        batches(source, views, batch_size=7, seed=0, start=0, steps=1, world=2)
    with pytest.raises(UserError, match="larger than the data"):
        batches(source, views, batch_size=25, seed=0, start=0, steps=1)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_error_in_a_worker_is_one_clear_error(workers):
    class Odd(Arrays):
        pass

    source = Odd(np.zeros((16, 8, 8), np.uint8))
    views = ImageViews(ImageSpec.of(8, 1), {"x": Crop(8)})

    class Fails:
        def fetch(self, source, indices, seed, epoch):
            if epoch == 1:
                raise ZeroDivisionError("by nothing")
            return views.fetch(source, indices, seed, epoch)

        finish = views.finish

    stream = batches(source, Fails(), batch_size=8, seed=0, start=0, steps=9, workers=workers)
    next(stream), next(stream)
    with pytest.raises(RunFailed, match="step 2 failed: ZeroDivisionError: by nothing"):
        next(stream)


def test_leaving_early_leaves_no_thread_behind(folder):
    import threading

    def workers() -> list[str]:  # not the watchdog's helpers, which decode what may hang and are kept for the next one
        return [thread.name for thread in threading.enumerate() if thread.name.startswith("views")]

    stream = batches(folder, VIEWS, batch_size=8, seed=0, start=0, steps=1000, workers=3)
    next(stream)
    assert workers()
    stream.close()
    assert not workers()


def test_views_pickle_without_weights():
    assert pickle.loads(pickle.dumps(VIEWS)) == VIEWS
    assert len(pickle.dumps(VIEWS)) < 4000


def test_a_kept_batch_is_never_overwritten(folder):
    views = ImageViews(ImageSpec.of(160, 3), preset("simclr", 160))
    kept = list(batches(folder, views, batch_size=8, seed=0, start=0, steps=6, workers=2))
    assert all(map(same, kept, batches(folder, views, batch_size=8, seed=0, start=0, steps=6, workers=0)))
    part = buffers.empty((1 << 20,), np.uint8)[5:9]
    part[:] = 7
    del kept
    others = [buffers.empty((1 << 20,), np.uint8) for _ in range(3)]
    for other in others:
        other[:] = 0
    assert (part == 7).all()


def grown(source, size, first, steps, workers):
    """Return by how many bytes the largest memory of the process grows from one step to the last."""
    views = ImageViews(ImageSpec.of(size, 3), preset("simclr", size))
    unit = 1 if sys.platform == "darwin" else 1024
    peak = 0
    for step, _ in enumerate(batches(source, views, batch_size=8, seed=0, start=0, steps=steps, workers=workers)):
        if step == first:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) * unit


def test_memory_stays_flat_over_ten_thousand_batches():
    source = Arrays(np.random.default_rng(0).integers(0, 256, (64, 12, 12, 3), dtype=np.uint8))
    assert grown(source, 12, first=1000, steps=10_000, workers=0) < 4 << 20


def test_memory_stays_flat_with_threads_and_files(folder):
    assert grown(folder, 64, first=100, steps=400, workers=2) < 16 << 20


def test_the_decoded_cache_changes_nothing_but_the_time(folder, tmp_path):
    wanted = list(batches(folder, VIEWS, batch_size=8, seed=0, start=0, steps=6, workers=0))
    for path in (None, str(tmp_path / "pixels"), str(tmp_path / "pixels")):
        cached = Decoded(folder, path=path)
        assert all(map(same, wanted, batches(cached, VIEWS, batch_size=8, seed=0, start=0, steps=6, workers=2)))
    with pytest.raises(UserError, match=r"need 0\.0 GiB and the limit is 0\.0 GiB, enough for [1-9]"):
        Decoded(folder, limit=200_000)
    with pytest.raises(UserError, match="other data"):
        Decoded(folder.take(np.arange(5)), path=str(tmp_path / "pixels"))


def test_the_contact_sheet_shows_every_view(folder, tmp_path):
    sheet = contact_sheet("dino", folder, tmp_path / "sheet.png", {"size": 48}, rows=4)
    assert Image.open(tmp_path / "sheet.png").size == sheet.size
    assert sheet.size == (3 * 52 + 8 * (21 + 4), 4 * 52)


def test_bench_counts_cores(folder):
    found = bench(folder, "simclr", 32, batch_size=8, step_seconds=1e-6, seconds=0.4)
    assert found["images_per_second"] > 0
    assert 0 < found["decode_share"] <= 1
    assert found["cores_needed"] > 1
    assert found["engine"] in ("compiled", "torch")
