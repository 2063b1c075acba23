"""Images that are mostly black: digits of 8x8 always, MNIST where KNORM_DATA holds it."""

import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from knorm.kernel import ops, window_stats

P = 0.05


def digits():
    datasets = pytest.importorskip("sklearn.datasets")
    images = torch.from_numpy(datasets.load_digits().images)
    return images.unsqueeze(1) / 16


def mnist():
    root = os.environ.get("KNORM_DATA")
    if root is None or not (Path(root) / "MNIST" / "raw").is_dir():
        pytest.skip("KNORM_DATA names no folder with MNIST/raw in it")
    raw = (Path(root) / "MNIST" / "raw" / "t10k-images-idx3-ubyte").read_bytes()
    images = torch.frombuffer(bytearray(raw[16:]), dtype=torch.uint8)
    return images.view(-1, 1, 28, 28)[:2000].double() / 255


def drop(images):
    """What dropout leaves of the images, the mask that did it, and the scale."""
    torch.manual_seed(0)
    keep, scale = ops.keep_mask(images.unsqueeze(1), P)
    return images * keep.squeeze(1) * scale, keep.squeeze(1), scale


def deviations(images, bounded):
    """1 / rstd of every 3x3 window, dropout and all: (N, 1, H, W)."""
    torch.manual_seed(0)
    return window_stats(images, 3, padding=1, dropout_p=P, bounded=bounded).rstd ** -1


def in_window(condition):
    """Whether it holds anywhere in each 3x3 window."""
    return F.max_pool2d(condition.double(), 3, 1, 1) > 0


@pytest.mark.parametrize("read", [digits, pytest.param(mnist, marks=pytest.mark.data)])
def test_a_window_that_loses_all_its_light_is_not_blown_up(read):
    images = read()
    _, keep, _ = drop(images)
    hidden = in_window(images > 0) & ~in_window((images > 0) & keep)
    size = F.avg_pool2d(images.square(), 3, 1, 1).sqrt()[hidden]  # root mean square of the unit
    published, bounded = (size / deviations(images, rule)[hidden] for rule in (False, True))
    assert hidden.double().mean() > 0.001
    assert published.max() > 50  # the hazard is real in these images
    assert bounded.max() <= 2


@pytest.mark.parametrize("read", [digits, pytest.param(mnist, marks=pytest.mark.data)])
def test_windows_that_lose_no_lit_pixel_are_exactly_as_published(read):
    images = read()
    _, keep, _ = drop(images)
    published, bounded = (deviations(images, rule) for rule in (False, True))
    untouched = ~in_window((images > 0) & ~keep)
    assert torch.equal(published[untouched], bounded[untouched])
    assert (published != bounded).double().mean() < 0.02
