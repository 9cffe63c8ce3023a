"""The order of very large data: a bijection, uniform, the same for any number of processes, in constant time."""

import tracemalloc

import numpy as np
import pytest
import torch

from selfsup.errors import UserError
from selfsup.task import Fetched
from selfsup.views import loader
from selfsup.views.loader import batches
from selfsup.views.order import BUFFER, LARGE, order, places
from selfsup.views.random import permutation

HUGE = 10**9


class Numbers:
    """A source of as many samples as are said, of which only the numbers are ever asked for."""

    name, kind, labels = "numbers", "image", None

    def __init__(self, count, **attributes):
        self.count = count
        self.__dict__ |= attributes

    def __len__(self):
        return self.count


class Fetch:
    """Views that return the numbers of the samples."""

    def fetch(self, source, indices, seed, epoch):
        return Fetched({"index": torch.from_numpy(indices)}, ())


def drawn(source, steps, batch_size=64, **options):
    stream = batches(source, Fetch(), batch_size=batch_size, seed=0, start=0, steps=steps, workers=0, **options)
    return [fetched.batch["index"].numpy() for fetched in stream]


@pytest.mark.parametrize("block", [1, 2, 7, 64, 5000])
def test_it_is_a_bijection_of_any_count_and_every_part_is_a_part_of_the_whole(block):
    rng = np.random.default_rng(block)
    for count in (1, 2, 3, 5, 16, 17, 99, 100, 257, *rng.integers(300, 5000, 8).tolist()):
        seed, epoch = (int(n) for n in rng.integers(0, 2**31, 2))
        whole = places(seed, epoch, count, 0, count, block)
        assert np.array_equal(np.sort(whole), np.arange(count)), (count, seed)
        first, last = sorted(rng.integers(0, count + 1, 2).tolist())
        assert np.array_equal(places(seed, epoch, count, first, last, block), whole[first:last])


def test_seeds_and_epochs_have_other_orders():
    found = [places(seed, epoch, 10_000, 0, 100).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(map(tuple, found))) == 4


def test_positions_are_uniform_and_neighbours_are_not_near():
    cells, count = 16, 40_000
    for seed in range(3):
        whole = places(seed, 0, count, 0, count)
        seen = np.histogram2d(np.arange(count), whole, bins=cells)[0]
        expected = count / cells**2
        squares = ((seen - expected) ** 2 / expected).sum()  # (cells - 1)² degrees of freedom
        free = (cells - 1) ** 2
        assert abs(squares - free) < 4 * (2 * free) ** 0.5
        near = np.corrcoef(whole[:-1], whole[1:])[0, 1]
        assert abs(near) < 4 / count**0.5
        apart = np.abs(np.diff(whole)).mean()
        assert apart == pytest.approx(count / 3, rel=0.02)
    first = np.array([places(seed, 0, 8, 0, 1)[0] for seed in range(4000)])  # one place over many seeds
    assert ((np.bincount(first, minlength=8) - 500) ** 2 / 500).sum() < 29  # 7 degrees of freedom, p = 1e-4


def test_blocks_keep_neighbours_together_as_far_as_it_is_said_and_no_further():
    count, block = 100_000, 100
    place = np.argsort(places(0, 0, count, 0, count, block))
    apart = np.abs(np.diff(place))
    inside = np.sort(apart)[: int(0.98 * count)]  # the others are neighbours across the edge of a block
    assert inside.max() < BUFFER * block
    assert apart.max() > 10 * BUFFER * block
    assert np.unique(np.sort(places(0, 0, count, 0, BUFFER * block, block)) // block).size < 2 * BUFFER + 2
    # every sample is at any place with the same probability, also behind the last whole block
    last = np.concatenate([places(seed, 0, 1050, 1040, 1050, block) for seed in range(600)])
    seen = np.bincount(last * 10 // 1050, minlength=10)
    assert ((seen - 600) ** 2 / 600).sum() < 60  # ten at a time are of one block, and not independent


def test_small_data_keep_their_order():
    assert np.array_equal(order(3, 1, 1000, 10, 20), permutation(3, 1, 1000)[10:20])
    assert np.array_equal(order(3, 1, LARGE + 1, 10, 20), places(3, 1, LARGE + 1, 10, 20))
    assert np.array_equal(np.concatenate(drawn(Numbers(640), 10)), permutation(0, 0, 640))


@pytest.mark.parametrize("source", [Numbers(HUGE), Numbers(HUGE, block=1000), Numbers(900, block=30)])
def test_the_same_global_batches_for_one_to_eight_processes(source):
    whole = drawn(source, 3)
    for world in (2, 4, 8):
        ranks = [drawn(source, 3, rank=rank, world=world) for rank in range(world)]
        for step, batch in enumerate(whole):
            assert np.array_equal(np.stack([ranks[rank][step] for rank in range(world)], 1).reshape(-1), batch)
    later = list(batches(source, Fetch(), batch_size=64, seed=0, start=2, steps=3))
    assert np.array_equal(later[0].batch["index"].numpy(), whole[2])


def test_blocks_can_be_asked_for_unless_something_else_says_what_is_together():
    source = Numbers(900)
    whole = np.concatenate(drawn(source, 9, batch_size=100, block=30))
    assert np.array_equal(whole, places(0, 0, 900, 0, 900, 30))
    with pytest.raises(UserError, match="leave --block out"):
        drawn(Numbers(900, lengths=np.ones(900)), 1, block=30)


@pytest.mark.parametrize("block", [1, 1000])
def test_a_billion_samples_need_little_memory(block):
    drawn(Numbers(HUGE, block=block), 1, batch_size=256)
    tracemalloc.start()
    found = drawn(Numbers(HUGE, block=block), 20, batch_size=256)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 2 << 20
    assert np.unique(np.concatenate(found)).size == 20 * 256


@pytest.mark.parametrize("workers", [0, 3])
def test_what_is_read_later_is_announced_once_and_for_this_process_alone(workers):
    told = []
    source = Numbers(100, prefetch=lambda rows: told.append(rows.tolist()))
    options = {"batch_size": 10, "seed": 0, "start": 2, "steps": 25}
    stream = batches(source, Fetch(), workers=workers, rank=1, world=2, **options)
    read = []
    for step, fetched in enumerate(stream):
        read.append(fetched.batch["index"].tolist())
        announced = {tuple(rows) for rows in list(told)}
        assert all(tuple(rows) in announced for rows in read)
        assert len(told) >= min(step + loader.READ_AHEAD + 1, 23)
    assert sorted(told) == sorted(read)
    assert len(read) == 23
