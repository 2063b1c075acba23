import torch

from knorm.training.seeds import draw, mix, seed_torch, uniform


def test_every_word_of_a_seed_and_their_order_matter():
    keys = {mix(0), mix(1), mix(0, 0), mix(0, 1), mix(1, 0), mix(0, 0, 0), mix(0, -1)}
    assert len(keys) == 7
    assert all(0 <= key < 2**63 for key in keys)


def test_a_draw_depends_on_key_and_position_alone():
    positions = torch.arange(100)
    shuffled = positions[torch.randperm(100)]
    assert torch.equal(draw(5, shuffled, 9), draw(5, positions, 9)[shuffled])
    assert not torch.equal(draw(5, positions, 9), draw(6, positions, 9))


def test_draws_are_uniform_and_neighbours_are_unrelated():
    drawn = draw(mix(0, 3), torch.arange(90_000), 9)
    counts = drawn.bincount(minlength=9)
    assert len(counts) == 9
    assert (counts - 10_000).abs().max() < 400  # four standard deviations are 380
    pairs = (9 * drawn[:-1] + drawn[1:]).bincount(minlength=81)
    assert (pairs - 1111).abs().max() < 170


def test_the_same_words_seed_torch_with_the_same_numbers():
    seed_torch(1, 2, 3)
    first = torch.rand(4)
    seed_torch(1, 2, 4)
    assert not torch.equal(torch.rand(4), first)
    seed_torch(1, 2, 3)
    assert torch.equal(torch.rand(4), first)


def test_uniform_numbers_fill_their_range_evenly():
    numbers = uniform(3, torch.arange(100_000), -2.0, 6.0)
    assert -2 <= numbers.min() < -1.99
    assert 5.99 < numbers.max() <= 6
    counts = numbers.histc(8, -2, 6)
    assert (counts - 12_500).abs().max() < 5 * 12_500**0.5
    assert torch.equal(uniform(3, torch.tensor([5]), -2.0, 6.0), numbers[5:6])
