import pytest
import torch

from knorm.training.sampling import (
    epoch_batches,
    evaluation_share,
    share_of_rank,
    steps_per_epoch,
)


def test_an_epoch_holds_every_sample_once_but_for_a_short_last_batch():
    batches = epoch_batches(103, 10, seed=0, epoch=1)
    assert batches.shape == (10, 10)
    assert len(batches.unique()) == 100


def test_the_order_is_a_function_of_seed_and_epoch():
    first = epoch_batches(50, 5, seed=0, epoch=1)
    torch.manual_seed(7)
    assert torch.equal(first, epoch_batches(50, 5, seed=0, epoch=1))
    assert not torch.equal(first, epoch_batches(50, 5, seed=0, epoch=2))
    assert not torch.equal(first, epoch_batches(50, 5, seed=1, epoch=1))


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4])
def test_ranks_share_every_global_batch_equally(num_ranks):
    batches = epoch_batches(60, 12, seed=0, epoch=1)
    shares = [share_of_rank(batches, rank, num_ranks) for rank in range(num_ranks)]
    assert {share.shape for share in shares} == {(5, 12 // num_ranks)}
    assert torch.equal(torch.cat(shares, dim=1), batches)


def test_a_batch_larger_than_the_training_set_is_refused():
    with pytest.raises(ValueError, match="batch_size 11 is more than the 10 training samples"):
        steps_per_epoch(10, 11)


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
