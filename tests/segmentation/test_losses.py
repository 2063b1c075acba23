from math import exp

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from segmentation.classes import IGNORE
from segmentation.loss_config import Loss
from segmentation.losses import Criterion, cross_entropy, dice, hard_cross_entropy, hard_pixels

K = 4
WEIGHTS = (0.5, 1.0, 2.0, 0.0)
SETTINGS = {
    "plain": Loss(),
    "weights": Loss(class_weights=WEIGHTS, label_smoothing=0.1),
    "ohem": Loss(ohem_threshold=0.7, ohem_min_kept=5),
    "dice": Loss(dice=0.5),
}
every_loss = pytest.mark.parametrize("name", SETTINGS)


def batch(n=3, size=(5, 6), seed=0, dtype=torch.float64):
    """Logits and labels; about a quarter of the pixels is ignored."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, K, *size, generator=generator, dtype=dtype)
    labels = torch.randint(0, K + 1, (n, *size), generator=generator)
    return logits, torch.where(labels == K, IGNORE, labels)


def log_probability(logits, label):
    return (logits[label] - logits.logsumexp(0)).item()


def pixels(logits, labels):
    """The labeled pixels of one image, one by one: label and log-probabilities of all classes."""
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            if labels[y, x] != IGNORE:
                yield labels[y, x].item(), logits[:, y, x].log_softmax(0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_cross_entropy_is_its_definition_pixel_by_pixel(weights, smoothing):
    logits, labels = batch()
    given_weights = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    terms = cross_entropy(logits, labels, given_weights, smoothing)
    w = weights or (1.0,) * K
    for image in range(len(labels)):
        total, weight = 0.0, 0.0
        for label, logp in pixels(logits[image], labels[image]):
            total -= (1 - smoothing) * w[label] * logp[label].item()
            total -= smoothing / K * sum(w[c] * logp[c].item() for c in range(K))
            weight += w[label]
        assert terms.sums[image].item() == pytest.approx(total, rel=1e-12)
        assert terms.weights[image].item() == pytest.approx(weight, rel=1e-12)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_sums_by_weights_of_all_images_are_torchs_mean(weights):
    logits, labels = batch()
    weights = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    terms = cross_entropy(logits, labels, weights, 0.1)
    expected = F.cross_entropy(
        logits, labels, weight=weights, ignore_index=IGNORE, label_smoothing=0.1
    )
    torch.testing.assert_close(terms.sums.sum() / terms.weights.sum(), expected)


def reference_ohem(logits, labels, threshold, min_kept):
    """Mean over the pixels kept, as HRNet's code has it, of one image or of several at once."""
    probability = logits.softmax(1).gather(1, labels.clamp(max=K - 1)[:, None]).flatten()
    losses = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none").flatten()
    mask = labels.flatten() != IGNORE
    ordered, index = probability[mask].sort()
    cut = max(ordered[min(min_kept, len(ordered) - 1)].item(), threshold)
    return losses[mask][index][ordered < cut].mean()


@pytest.mark.parametrize(("threshold", "min_kept"), [(0.05, 4), (0.7, 4), (0.9, 1), (0.05, 1)])
def test_hard_pixels_are_those_of_hrnet(threshold, min_kept):
    logits, labels = batch()
    settings = {"threshold": threshold, "min_kept": min_kept}
    means = hard_cross_entropy(logits, labels, **settings).means()
    for image in range(3):
        part = slice(image, image + 1)
        expected = reference_ohem(logits[part], labels[part], threshold, min_kept)
        torch.testing.assert_close(means[image], expected)
    together = hard_cross_entropy(logits, labels, **settings, per_image=False)
    expected = reference_ohem(logits, labels, threshold, 3 * min_kept)
    torch.testing.assert_close(together.sums.sum() / together.weights.sum(), expected)


@given(st.integers(1, 40), st.floats(0, 1), st.integers(0, 99), st.booleans())
def test_at_least_the_pixels_asked_for_are_hard(min_kept, threshold, seed, per_image):
    logits, labels = batch(seed=seed)
    kept = hard_pixels(logits, labels, threshold, min_kept, per_image)
    valid = labels != IGNORE
    assert not (kept & ~valid).any()
    if per_image:
        assert (kept.sum((1, 2)) >= valid.sum((1, 2)).clamp(max=min_kept)).all()
    else:
        assert kept.sum() >= min(valid.sum(), 3 * min_kept)
    sure = logits.softmax(1).amax(1)
    worst_left = sure[valid & ~kept & (logits.argmax(1) == labels)]
    assert (worst_left >= threshold - 1e-9).all()


def test_dice_is_its_definition_class_by_class():
    logits, labels = batch()
    labels[0][labels[0] == 2] = IGNORE  # a class that this image does not hold
    losses = dice(logits, labels)
    for image in range(3):
        ratios = []
        for c in range(K):
            values = [
                (exp(logp[c].item()), label == c)
                for label, logp in pixels(logits[image], labels[image])
            ]
            if any(truth for _, truth in values):
                overlap = sum(p * truth for p, truth in values)
                ratios.append(1 - 2 * overlap / sum(p * p + truth for p, truth in values))
        assert len(ratios) == (3 if image == 0 else 4)
        assert losses[image].item() == pytest.approx(sum(ratios) / len(ratios), rel=1e-12)


def test_dice_of_images_together_is_that_of_one_image_made_of_them():
    logits, labels = batch()
    one = dice(torch.cat(logits.unbind(), 1)[None], torch.cat(labels.unbind(), 0)[None])
    torch.testing.assert_close(dice(logits, labels, per_image=False), one.expand(3))


def test_dice_is_0_where_all_is_right_and_1_where_all_is_wrong():
    labels = torch.arange(K).view(1, 2, 2)
    right = 100 * F.one_hot(labels, K).movedim(-1, 1).double()
    assert dice(right, labels).item() == pytest.approx(0, abs=1e-12)
    assert dice(right, (labels + 1) % K).item() == pytest.approx(1, abs=1e-12)


@every_loss
@pytest.mark.parametrize("mean", ["image", "batch"])
def test_images_without_a_label_count_as_0_and_have_no_gradient(name, mean):
    settings = vars(SETTINGS[name]) | {"mean": mean}
    logits, labels = batch()
    labels[1] = IGNORE
    logits.requires_grad_()
    losses = Criterion(Loss(**settings), K)(logits, labels)
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    assert gradient.isfinite().all()
    assert not gradient[1].any()
    assert gradient[0].any()
    if name != "dice" or mean == "image":
        assert losses[1] == 0
    nothing = Criterion(Loss(**settings), K)(logits, torch.full_like(labels, IGNORE))
    assert not nothing.any()
    assert not torch.autograd.grad(nothing.sum(), logits)[0].any()


@every_loss
def test_what_is_ignored_changes_nothing(name):
    logits, labels = batch()
    criterion = Criterion(SETTINGS[name], K)
    changed = torch.where((labels == IGNORE)[:, None], -logits, logits)
    torch.testing.assert_close(criterion(changed, labels), criterion(logits, labels))


@every_loss
def test_gradients_agree_with_differences(name):
    logits, labels = batch(n=2, size=(2, 3))
    criterion = Criterion(SETTINGS[name], K)
    assert torch.autograd.gradcheck(lambda x: criterion(x, labels), logits.requires_grad_())


@every_loss
def test_the_loss_of_an_image_depends_on_no_other_image(name):
    logits, labels = batch()
    criterion = Criterion(SETTINGS[name], K)
    together = criterion(logits, labels)
    alone = torch.cat([criterion(logits[i : i + 1], labels[i : i + 1]) for i in range(3)])
    assert torch.equal(together, alone)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_a_mean_over_pixels_is_the_same_for_any_cutting_of_the_batch(weights):
    logits, labels = batch(n=4)
    labels[2, :4] = IGNORE
    criterion = Criterion(Loss(mean="batch", class_weights=weights), K)
    assert criterion.needs_weight
    expected = F.cross_entropy(
        logits,
        labels,
        weight=None if weights is None else torch.tensor(weights, dtype=torch.float64),
        ignore_index=IGNORE,
    )
    mean_weight = criterion.weights(labels).sum() / 4
    for cuts in ([4], [1, 3], [2, 1, 1]):
        parts = zip(logits.split(cuts), labels.split(cuts), strict=True)
        total = sum(criterion(*part, mean_weight).sum() for part in parts)
        torch.testing.assert_close(total / 4, expected)
    torch.testing.assert_close(criterion(logits, labels).mean(), expected)


def test_hard_pixels_of_a_batch_are_averaged_over_the_pass():
    logits, labels = batch()
    criterion = Criterion(Loss(mean="batch", ohem_threshold=0.7, ohem_min_kept=5), K)
    assert not criterion.needs_weight
    torch.testing.assert_close(
        criterion(logits, labels, 123.0).mean(), reference_ohem(logits, labels, 0.7, 15)
    )


def test_the_auxiliary_head_counts_by_its_weight_and_images_without_labels_not_at_all():
    logits, labels = batch()
    other = batch(seed=1)[0]
    criterion = Criterion(Loss(aux=0.25), K)
    losses = criterion({"out": logits, "aux": other}, labels[:2])
    expected = criterion(logits, labels) + 0.25 * criterion(other, labels)
    torch.testing.assert_close(losses, expected[:2])


def test_losses_of_16_bits_are_summed_in_32():
    logits, labels = batch(dtype=torch.bfloat16, size=(64, 64))
    for settings in SETTINGS.values():
        assert Criterion(settings, K)(logits, labels).dtype == torch.float32
