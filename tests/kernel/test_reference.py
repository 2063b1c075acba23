"""The definition against loops over windows, written from the paper's sentences."""

import itertools

import pytest
import torch

from knorm.kernel import reference

torch.manual_seed(0)


def window(x, corner, kernel_size, dilation):
    """All channels of the window at `corner`, for one sample (C, H, W)."""
    rows, cols = (
        slice(c, c + d * (k - 1) + 1, d)
        for c, k, d in zip(corner, kernel_size, dilation, strict=True)
    )
    return x[:, rows, cols]


def corners(x, kernel_size, stride, dilation):
    spans = [
        range(0, size - d * (k - 1), s)
        for size, k, s, d in zip(x.shape[-2:], kernel_size, stride, dilation, strict=True)
    ]
    return itertools.product(*map(enumerate, spans))


@pytest.mark.parametrize(
    ("kernel_size", "stride", "dilation"),
    [((2, 3), (1, 2), (1, 1)), ((3, 1), (2, 3), (2, 1)), ((1, 1), (1, 1), (1, 1))],
)
def test_every_output_is_filters_times_one_normalized_window(kernel_size, stride, dilation):
    x = torch.randn(2, 4, 7, 6, dtype=torch.double)
    weight = torch.randn(5, 4, *kernel_size, dtype=torch.double)
    bias = torch.randn(5, dtype=torch.double)
    mean, rstd = reference.window_stats(x, kernel_size, stride, dilation)
    out = reference.kn_conv(x, mean, rstd, weight, bias, stride, dilation, groups=1)
    for n in range(2):
        for (i, top), (j, left) in corners(x, kernel_size, stride, dilation):
            unit = window(x[n], (top, left), kernel_size, dilation)
            normal = (unit - unit.mean()) / (unit.var(correction=0) + 1e-5).sqrt()
            torch.testing.assert_close(out[n, :, i, j], (weight * normal).sum((1, 2, 3)) + bias)


@pytest.mark.parametrize(("kernel_size", "stride"), [((2, 2), (1, 1)), ((2, 3), (3, 2))])
def test_normalized_windows_lie_side_by_side(kernel_size, stride):
    x = torch.randn(2, 3, 6, 7, dtype=torch.double)
    mean, rstd = reference.window_stats(x, kernel_size, stride, (1, 1))
    out = reference.kernel_norm(x, mean, rstd, kernel_size, stride)
    kh, kw = kernel_size
    for (i, top), (j, left) in corners(x, kernel_size, stride, (1, 1)):
        unit = window(x[1], (top, left), kernel_size, (1, 1))
        normal = (unit - unit.mean()) / (unit.var(correction=0) + 1e-5).sqrt()
        torch.testing.assert_close(out[1, :, i * kh : (i + 1) * kh, j * kw : (j + 1) * kw], normal)


def test_statistics_by_group_are_those_of_the_groups_alone():
    x = torch.randn(2, 6, 5, 5, dtype=torch.double)
    mean, rstd = reference.window_stats(x, (3, 3), (1, 1), (1, 1), groups=2)
    for g in range(2):
        part = reference.window_stats(x[:, 3 * g : 3 * g + 3], (3, 3), (1, 1), (1, 1))
        torch.testing.assert_close((mean[:, g : g + 1], rstd[:, g : g + 1]), part)
