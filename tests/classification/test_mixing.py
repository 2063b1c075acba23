import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from classification.augment_config import Augment
from classification.mixing import beta, erased, mixed

DRAWN = {"seed": 3, "epoch": 2}
CLASSES = 4
WAYS = [Augment(mixup=0.4), Augment(cutmix=1.0), Augment(mixup=0.4, cutmix=1.0)]


def batch(count, height=6, width=9):
    generator = torch.Generator().manual_seed(count)
    inputs = torch.rand(count, 2, height, width, generator=generator)
    labels = torch.randint(0, CLASSES, (count,), generator=generator)
    return inputs, labels, torch.randperm(1000, generator=generator)[:count]


def mix_batch(inputs, labels, samples, augment):
    return mixed(inputs, labels, samples, augment, num_classes=CLASSES, **DRAWN)


def one_hot(label):
    return torch.eye(CLASSES)[label]


@pytest.mark.parametrize("count", [2, 8, 9])
def test_mixup_weighs_pixels_and_targets_alike_and_a_pair_by_one_weight(count):
    inputs, labels, samples = batch(count)
    found = mix_batch(inputs, labels, samples, Augment(mixup=0.4))
    for first in range(0, count // 2 * 2, 2):
        own = (found.inputs[first] - inputs[first + 1]) / (inputs[first] - inputs[first + 1])
        part = own.median()
        for mine, other in ((first, first + 1), (first + 1, first)):
            torch.testing.assert_close(
                found.inputs[mine], part * inputs[mine] + (1 - part) * inputs[other]
            )
            expected = part * one_hot(labels[mine]) + (1 - part) * one_hot(labels[other])
            torch.testing.assert_close(found.targets[mine], expected, atol=1e-4, rtol=0)
    if count % 2:
        assert torch.equal(found.inputs[-1], inputs[-1])
        assert torch.equal(found.targets[-1], one_hot(labels[-1]))


def test_cutmix_swaps_one_box_and_weighs_targets_by_its_area():
    inputs, labels, samples = batch(40)
    found = mix_batch(inputs, labels, samples, Augment(cutmix=1.0))
    areas = set()
    for mine in range(40):
        other = mine ^ 1
        taken = (found.inputs[mine] == inputs[other]).all(0)
        assert torch.equal(found.inputs[mine][:, ~taken], inputs[mine][:, ~taken])
        rows, columns = taken.any(1), taken.any(0)
        assert torch.equal(taken, rows[:, None] & columns)
        for line in (rows, columns):
            places = line.nonzero().flatten().tolist()
            assert not places or places == list(range(places[0], places[-1] + 1))
        part = taken.float().mean()
        expected = (1 - part) * one_hot(labels[mine]) + part * one_hot(labels[other])
        torch.testing.assert_close(found.targets[mine], expected)
        areas.add(part.item())
    assert len(areas) > 8


def test_with_both_half_of_the_pairs_are_mixed_and_half_are_cut():
    inputs, labels, samples = batch(900)
    found = mix_batch(inputs, labels, samples, Augment(mixup=1.0, cutmix=1.0))
    partner = inputs.view(450, 2, *inputs.shape[1:]).flip(1).flatten(0, 1)
    cut = ((found.inputs == inputs) | (found.inputs == partner)).flatten(1).all(1)
    assert 350 < cut.sum() < 550
    assert torch.equal(cut[::2], cut[1::2])


@pytest.mark.parametrize("augment", WAYS, ids=["mixup", "cutmix", "both"])
@given(cuts=st.lists(st.integers(0, 10), max_size=4), order=st.permutations(range(10)))
def test_mixing_does_not_depend_on_how_a_batch_is_cut_into_pairs(augment, cuts, order):
    inputs, labels, samples = batch(20)
    together = mix_batch(inputs, labels, samples, augment)
    place = [pair * 2 + member for pair in order for member in (0, 1)]
    edges = [0, *sorted(2 * cut for cut in cuts), 20]
    for low, high in itertools.pairwise(edges):
        part = torch.tensor(place[low:high], dtype=torch.long)
        found = mix_batch(inputs[part], labels[part], samples[part], augment)
        assert torch.equal(found.inputs, together.inputs[part])
        assert torch.equal(found.targets, together.targets[part])


@pytest.mark.parametrize("augment", WAYS, ids=["mixup", "cutmix", "both"])
def test_targets_are_probabilities_and_the_label_is_the_likeliest(augment):
    found = mix_batch(*batch(60), augment)
    torch.testing.assert_close(found.targets.sum(1), torch.ones(60))
    assert (found.targets >= 0).all()
    assert torch.equal(found.targets.gather(1, found.labels[:, None])[:, 0], found.targets.amax(1))


@pytest.mark.parametrize("alpha", [0.1, 0.4, 1.0, 8.0])
def test_weights_have_the_moments_of_their_beta_distribution(alpha):
    numbers = beta(alpha, 5, torch.arange(20_000))
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(numbers.mean() - 0.5) < 5 * math.sqrt(variance / 20_000)
    assert numbers.var() == pytest.approx(variance, rel=0.05)
    assert 0 <= numbers.min() <= numbers.max() <= 1


def test_erasing_happens_as_often_as_asked_and_leaves_a_box_of_zeros():
    inputs = torch.ones(2000, 1, 20, 30)
    found = erased(inputs, torch.arange(2000), 0.3, **DRAWN)
    changed = (found == 0).flatten(1).any(1)
    assert abs(changed.float().mean() - 0.3) < 5 * math.sqrt(0.3 * 0.7 / 2000)
    for hole in (found[changed] == 0)[:, 0]:
        rows, columns = hole.any(1), hole.any(0)
        assert torch.equal(hole, rows[:, None] & columns)
        assert 0.01 < hole.float().mean() < 0.35
        shape = rows.sum() / columns.sum()
        assert 0.2 < shape < 5


def test_erasing_does_not_depend_on_the_batch_and_changes_with_the_epoch():
    inputs, _, samples = batch(50)
    together = erased(inputs, samples, 0.5, **DRAWN)
    for part in torch.randperm(50).split(7):
        assert torch.equal(erased(inputs[part], samples[part], 0.5, **DRAWN), together[part])
    assert not torch.equal(erased(inputs, samples, 0.5, seed=3, epoch=3), together)


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_a_probability_of_0_is_never_and_of_1_is_always(probability):
    inputs, _, samples = batch(50, 30, 30)
    changed = (erased(inputs, samples, probability, **DRAWN) != inputs).flatten(1).any(1)
    assert changed.float().mean() == probability
