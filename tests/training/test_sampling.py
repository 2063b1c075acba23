import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from knorm.training.sampling import Sampling, evaluation_share


def sampling(num_samples, batch_size, seed=0, **options):
    return Sampling(num_samples=num_samples, batch_size=batch_size, seed=seed, **options)


def test_an_epoch_holds_every_sample_once_but_for_a_short_last_batch():
    batches = sampling(103, 10).batches(epoch=1)
    assert [len(batch) for batch in batches] == [10] * 10
    assert len(torch.cat(batches).unique()) == 100


def test_the_short_last_batch_is_kept_on_request():
    cut = sampling(103, 10, drop_last=False)
    batches = cut.batches(epoch=1)
    assert [len(batch) for batch in batches] == [10] * 10 + [3]
    assert len(batches) == cut.steps
    assert torch.cat(batches).sort().values.tolist() == list(range(103))


def test_the_order_is_a_function_of_seed_and_epoch():
    first = torch.cat(sampling(50, 5).batches(epoch=1))
    torch.manual_seed(7)
    assert torch.equal(first, torch.cat(sampling(50, 5).batches(epoch=1)))
    assert not torch.equal(first, torch.cat(sampling(50, 5).batches(epoch=2)))
    assert not torch.equal(first, torch.cat(sampling(50, 5, seed=1).batches(epoch=1)))


def test_repeated_samples_follow_each_other_with_numbers_of_their_own():
    (batch,) = sampling(7, 7, repeats=3).batches(epoch=1)
    assert (batch % 7).tolist()[:6] == [batch[0]] * 3 + [batch[3]] * 3
    assert (batch // 7).tolist() == [0, 1, 2, 0, 1, 2, 0]


@given(
    st.integers(1, 40),
    st.integers(1, 16),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 2),
)
def test_the_shares_make_up_every_batch_and_every_rank_makes_every_pass(
    num_samples, batch_size, num_ranks, passes, together
):
    cut = sampling(num_samples, batch_size, drop_last=False, passes=passes, together=together)
    by_rank = [list(cut.windows(1, rank, num_ranks)) for rank in range(num_ranks)]
    for step, batch in enumerate(cut.batches(epoch=1)):
        shares = [share for windows in by_rank for share in windows[step][0]]
        assert len(shares) == num_ranks * passes
        assert torch.equal(torch.cat([share.samples[: share.real] for share in shares]), batch)
        assert all(len(share.samples) for share in shares)
        assert {windows[step][1] for windows in by_rank} == {len(batch)}
        assert all(share.real % together == 0 for share in shares[:-1] if share.real < len(batch))


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("passes", [1, 3])
def test_ranks_and_passes_share_a_batch_equally_where_they_can(num_ranks, passes):
    cut = sampling(60, 12 * passes, passes=passes)
    for shares, _ in cut.windows(1, num_ranks - 1, num_ranks):
        assert [share.real for share in shares] == [12 // num_ranks] * passes


def test_an_epoch_can_begin_at_any_step():
    cut = sampling(40, 8)
    every = [shares for shares, _ in cut.windows(3, 0, 2)]
    later = [shares for shares, _ in cut.windows(3, 0, 2, first_step=2)]
    assert all(
        torch.equal(a.samples, b.samples)
        for one, other in zip(every[2:], later, strict=True)
        for a, b in zip(one, other, strict=True)
    )


def test_a_batch_larger_than_the_training_set_is_refused():
    with pytest.raises(ValueError, match="batch_size 11 is more than the 10 training samples"):
        sampling(10, 11)


@pytest.mark.parametrize("num_samples", [1, 7, 101])
@pytest.mark.parametrize("num_ranks", [1, 2, 3, 5])
def test_evaluation_takes_every_sample_once_in_batches_that_ranks_do_not_change(
    num_samples, num_ranks
):
    alone = {number: samples.tolist() for number, samples in evaluation_share(num_samples, 8, 0, 1)}
    dealt = [
        (number, samples.tolist())
        for rank in range(num_ranks)
        for number, samples in evaluation_share(num_samples, 8, rank, num_ranks)
    ]
    assert len(dealt) == len(alone)
    assert dict(dealt) == alone
    assert sorted(sample for _, samples in dealt for sample in samples) == list(range(num_samples))


@pytest.mark.parametrize("together", [1, 2, 3])
@pytest.mark.parametrize("repeats", [1, 2, 4])
def test_groups_are_repeated_as_a_whole_and_an_epoch_stays_as_long(together, repeats):
    sampling = Sampling(
        num_samples=50, batch_size=7, seed=0, drop_last=False, repeats=repeats, together=together
    )
    order = torch.cat(sampling.batches(3))
    assert len(order) == 50
    assert len(order.unique()) == 50
    group = order[: together * repeats].view(repeats, together)
    copies = torch.arange(repeats)[:, None] * 50
    assert torch.equal(group, group[0] + copies)
