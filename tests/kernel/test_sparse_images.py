"""Images that are mostly black: digits of 8x8 always, MNIST where KNORM_DATA holds it."""

import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from knorm.kernel import window_stats

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


def deviations(images, bounded):
    """1 / rstd of every 3x3 window, dropout and all: (N, 1, H, W)."""
    torch.manual_seed(0)
    return window_stats(images, 3, padding=1, dropout_p=P, bounded=bounded).rstd ** -1


def largest_rms(images, bounded):
    """The root mean square of every normalized 3x3 window, the largest of all."""
    torch.manual_seed(0)
    stats = window_stats(images, 3, padding=1, dropout_p=P, bounded=bounded)
    mean, square = (F.avg_pool2d(x, 3, 1, 1) for x in (images, images.square()))
    shifted = square - 2 * mean * stats.mean + stats.mean.square()
    return (shifted.sqrt() * stats.rstd).max()


@pytest.mark.parametrize("read", [digits, pytest.param(mnist, marks=pytest.mark.data)])
def test_no_window_is_blown_up(read):
    images = read()
    assert largest_rms(images, bounded=False) > 50  # the hazard is real in these images
    assert largest_rms(images, bounded=True) <= 3 + 1e-6


@pytest.mark.parametrize("read", [digits, pytest.param(mnist, marks=pytest.mark.data)])
def test_nearly_all_windows_are_exactly_as_published(read):
    images = read()
    published, bounded = (deviations(images, rule) for rule in (False, True))
    assert (published != bounded).double().mean() < 0.02
