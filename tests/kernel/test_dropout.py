"""The mask of dropout: its probability, its independence, and that there is only one of it."""

import pytest
import torch

from knorm.kernel.dropout import draw_seed, keep_mask

LAGS = [(0, 0, 1), (0, 0, 2), (0, 1, 0), (0, 3, 0), (1, 0, 0), (2, 0, 0), (1, 1, 1)]


def dropped(shape, p, seed):
    return (~keep_mask(torch.empty(shape).unsqueeze(1), p, torch.tensor(seed))).squeeze(1)


@pytest.mark.parametrize("p", [0.001, 0.05, 0.5, 0.95])
def test_elements_are_dropped_with_the_probability(p):
    for seed in range(5):
        share = dropped((7, 64, 50, 50), p, seed).double().mean()
        assert abs(share - p) < 5 * (p * (1 - p) / (7 * 64 * 2500)) ** 0.5


@pytest.mark.parametrize("lag", LAGS, ids=str)
@pytest.mark.parametrize("p", [0.05, 0.5])
def test_neighbouring_samples_channels_and_pixels_are_dropped_independently(lag, p):
    found = dropped((16, 64, 1024), p, 3).double() - p
    here = found[tuple(slice(size - by) for size, by in zip(found.shape, lag, strict=True))]
    there = found[tuple(slice(by, None) for by in lag)]
    correlation = (here * there).mean() / (p * (1 - p))
    assert abs(correlation) < 5 / here.numel() ** 0.5


def test_masks_of_neighbouring_seeds_are_independent():
    for other in (1, 2, 2**32, 2**62):
        both = dropped((4, 64, 1024), 0.5, 0) == dropped((4, 64, 1024), 0.5, other)
        assert abs(both.double().mean() - 0.5) < 5 * 0.5 / both.numel() ** 0.5


def test_a_samples_mask_does_not_depend_on_the_batch_the_layout_or_the_groups():
    seed = draw_seed()
    x = torch.empty(3, 1, 4, 5, 6)
    mask = keep_mask(x, 0.3, seed)
    last = keep_mask(x.movedim((1, 2), (3, 4)).contiguous().movedim((3, 4), (1, 2)), 0.3, seed)
    assert last.stride(2) == 1
    assert torch.equal(last, mask)
    assert torch.equal(keep_mask(x[:2], 0.3, seed), mask[:2])
    assert torch.equal(
        keep_mask(x.view(3, 2, 2, 5, 6), 0.3, seed).flatten(1, 2), mask.flatten(1, 2)
    )
