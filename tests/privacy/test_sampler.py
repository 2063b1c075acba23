import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from privacy.sampler import PoissonSampling, chunks
from privacy.secret import Secret
from tests.privacy.known import KEY, SECRET

RARE = 1e-3  # a test refuses what has a smaller probability


def sampling(num_samples, rate, steps, secret=SECRET):
    return PoissonSampling(
        num_samples=num_samples, sampling_rate=Fraction(rate), steps=steps, secret=secret
    )


def membership(batches, num_samples):
    """(steps, records): 1 where the record is in."""
    rows = [torch.bincount(batch, minlength=num_samples) for batch in batches]
    return torch.stack(rows).numpy()


@pytest.fixture(scope="module")
def drawn():
    """3000 steps over 1000 records at q = 0.3, dealt to three ranks and put together again."""
    cut = sampling(1000, Fraction(3, 10), 3000)
    ranks = [list(cut.shares(rank, 3)) for rank in range(3)]
    return membership([torch.cat(shares) for shares in zip(*ranks, strict=True)], 1000)


def test_every_record_is_in_as_often_as_q_says(drawn):
    steps, q = len(drawn), 0.3
    assert drawn.max() == 1
    statistic = ((drawn.sum(0) - steps * q) ** 2).sum() / (steps * q * (1 - q))
    assert RARE < stats.chi2(drawn.shape[1]).sf(statistic) < 1 - RARE


def test_the_size_of_a_batch_has_the_binomial_law(drawn):
    steps, records = drawn.shape
    sizes = drawn.sum(1)
    statistic = (steps - 1) * sizes.var(ddof=1) / (records * 0.3 * 0.7)
    assert RARE < stats.chi2(steps - 1).sf(statistic) < 1 - RARE
    assert abs(sizes.mean() - 300) < 4 * math.sqrt(records * 0.3 * 0.7 / steps)


def covariances(rows, other):
    """z-scores of the covariances of columns i of two (steps, records) tables, q = 0.3."""
    products = (rows - 0.3) * (other - 0.3)
    return products.sum(0) / (0.21 * math.sqrt(len(rows)))


PAIRS = {  # two tables whose columns are to be independent of each other
    "records far apart": lambda table: (table[:, :500], table[:, 500:]),
    "records of one step that three ranks get": lambda table: (table[:, :-1], table[:, 1:]),
    "a record in steps that follow each other": lambda table: (table[:-1], table[1:]),
}


def are_independent(table, pair):
    scores = covariances(*pair(table))
    spread = RARE < stats.chi2(len(scores)).sf((scores**2).sum()) < 1 - RARE
    return spread and abs(scores.mean()) < 4 / math.sqrt(len(scores))


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS.keys())
def test_records_and_steps_are_independent(drawn, pair):
    assert are_independent(drawn, pair)


def test_one_mask_for_all_ranks_would_not_pass():
    """What ranks with the same seed and a sampler of their own draw: each the same mask."""
    local = sampling(500, Fraction(3, 10), 3000)
    mask = membership([local.batch(step) for step in range(3000)], 500)
    assert not are_independent(np.hstack([mask, mask]), PAIRS["records far apart"])


@pytest.mark.parametrize("batch_size", [4096, 2048, 250])
def test_the_rate_is_the_one_asked_for(batch_size):
    cut = sampling(50_000, Fraction(batch_size, 50_000), 40)
    taken = sum(len(cut.batch(step)) for step in range(40))
    q, trials = batch_size / 50_000, 50_000 * 40
    assert abs(taken - q * trials) < 4 * math.sqrt(trials * q * (1 - q))
    nearest = 1 / round(1 / q)  # what a loader of whole batches makes of it
    assert nearest == q or abs(taken - nearest * trials) > 4 * math.sqrt(trials * q)


class Given(Secret):
    """Draws what it is told to."""

    __slots__ = ("given",)

    def __init__(self, given):
        super().__init__(KEY)
        self.given = np.array(given, dtype=np.uint64)

    def words(self, count, purpose, *parts):
        return self.given


@pytest.mark.parametrize("rate", [Fraction(4096, 50_000), Fraction(1, 3), Fraction(1, 2**64)])
def test_the_threshold_is_q_to_the_last_bit(rate):
    limit = math.floor(rate * 2**64)
    words = [0, limit - 1, limit, 2**64 - 1]
    assert sampling(4, rate, 1, Given(words)).batch(0).tolist() == [0, 1]


def test_a_rate_of_one_takes_every_record():
    assert sampling(3, 1, 1, Given([0, 2**63, 2**64 - 1])).batch(0).tolist() == [0, 1, 2]


def test_all_ranks_make_all_steps_empty_ones_too():
    cut = sampling(40, Fraction(1, 20), 100)
    ranks = [list(cut.shares(rank, 2)) for rank in range(2)]
    assert [len(shares) for shares in ranks] == [100, 100]
    empty = [sum(len(share) == 0 for share in shares) for shares in ranks]
    assert min(empty) > 0
    assert any(len(a) + len(b) == 0 for a, b in zip(*ranks, strict=True))


@settings(max_examples=60)
@given(
    num_samples=st.integers(1, 300),
    rate=st.fractions(Fraction(1, 100), 1),
    step=st.integers(0, 9),
    num_ranks=st.integers(1, 5),
    physical=st.integers(1, 40),
)
def test_ranks_and_chunks_only_deal_the_batch_out(num_samples, rate, step, num_ranks, physical):
    cut = sampling(num_samples, rate, 10)
    batch = cut.batch(step)
    assert batch.dtype == torch.int64
    assert len(batch.unique()) == len(batch)
    assert len(batch) == 0 or (batch[0] >= 0 and batch[-1] < num_samples)
    shares = [cut.share(step, rank, num_ranks) for rank in range(num_ranks)]
    assert torch.equal(torch.cat(shares).sort().values, batch)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    for share in shares:
        parts = chunks(share, physical)
        assert torch.equal(torch.cat([share[:0], *parts]), share)
        assert all(1 <= len(part) <= physical for part in parts)


def test_a_step_is_the_same_whenever_it_is_drawn():
    cut = sampling(500, Fraction(1, 5), 20)
    every = list(cut.shares(0, 2))
    torch.manual_seed(3)
    later = list(cut.shares(0, 2, first_step=13))
    assert len(later) == 7
    assert all(torch.equal(a, b) for a, b in zip(every[13:], later, strict=True))
    assert torch.equal(sampling(500, Fraction(1, 5), 20).share(13, 0, 2), later[0])
    assert not torch.equal(sampling(500, Fraction(1, 5), 20, Secret(bytes(32))).batch(13), later[0])


def test_a_longer_run_begins_with_the_same_steps():
    short, long = (sampling(500, Fraction(1, 5), steps) for steps in (5, 50))
    assert all(torch.equal(short.batch(step), long.batch(step)) for step in range(5))


MISTAKES = {
    "no records": ({"num_samples": 0}, "got 0 and 9"),
    "fewer steps than none": ({"steps": -1}, "got 10 and -1"),
    "a rate of 0": ({"sampling_rate": Fraction(0)}, "got 0"),
    "a batch larger than the set": ({"sampling_rate": Fraction(11, 10)}, "got 11/10"),
    "a rate below a word's": ({"sampling_rate": Fraction(1, 2**65)}, r"lie in \(0, 1\]"),
    "a rate that was rounded": ({"sampling_rate": 0.08192}, r"Fraction\(4096.*got 0\.08192"),
}


@pytest.mark.parametrize(("change", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_are_named(change, message):
    right = {"num_samples": 10, "sampling_rate": Fraction(1, 2), "steps": 9, "secret": SECRET}
    with pytest.raises(ValueError, match=message):
        PoissonSampling(**right | change)


@pytest.mark.parametrize("step", [-1, 9])
def test_there_are_no_steps_but_those_accounted(step):
    with pytest.raises(ValueError, match=f"step {step} is none of the 9"):
        sampling(10, Fraction(1, 2), 9).batch(step)


def test_a_chunk_holds_at_least_one_record():
    with pytest.raises(ValueError, match="physical_batch_size must be positive, got 0"):
        chunks(torch.arange(3), 0)
