"""Geometries that could break a kernel-normalized layer, and the definition's answer to them."""

import torch
import torch.nn.functional as F
from hypothesis import strategies as st

from knorm.kernel import reference, windows
from knorm.kernel.dropout import draw_seed, keep_mask

PADDING_MODES = tuple(windows.PADDING_MODES)


@st.composite
def geometries(draw, min_dims=1, max_dims=3):
    """Keyword arguments of `kn_conv` and shapes: small, odd, with every convention of torch."""
    dims = draw(st.integers(min_dims, max_dims))
    each = lambda low, high: tuple(draw(st.integers(low, high)) for _ in range(dims))  # noqa: E731
    kernel_size, stride = each(1, 3), each(1, 3)
    dilation = each(1, 2)
    padding = draw(st.sampled_from(["same", "valid", "pairs"]))
    if padding == "same":
        stride = (1,) * dims
    if padding == "pairs":
        padding = each(0, 2)
    groups = draw(st.sampled_from([1, 2]))
    return {
        "space": tuple(draw(st.integers(5, 8)) for _ in range(dims)),
        "kernel_size": kernel_size,
        "in_channels": groups * draw(st.integers(1, 3)),
        "out_channels": groups * draw(st.integers(1, 2)),
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
        "group_stats": draw(st.booleans()),
        "padding_mode": draw(st.sampled_from(PADDING_MODES)),
        "seed": draw(st.integers(0, 2**16)),
    }


def tensors(case, dtype=torch.double):
    """Input, weight and bias of a case, all with gradients."""
    generator = torch.Generator().manual_seed(case["seed"])
    shapes = (
        (2, case["in_channels"], *case["space"]),
        (case["out_channels"], case["in_channels"] // case["groups"], *case["kernel_size"]),
        (case["out_channels"],),
    )
    x, weight, bias = (torch.randn(s, generator=generator, dtype=dtype) for s in shapes)
    return tuple(t.requires_grad_() for t in ((x + 0.5).detach(), weight, bias))


def pairs(case):
    """Padding before and after, for each dimension."""
    return windows.padding_pairs(
        case["padding"], case["kernel_size"], case["stride"], case["dilation"]
    )


def padded(x, case):
    """The input as the definition wants it."""
    flat = [p for pair in reversed(pairs(case)) for p in pair]
    return F.pad(x, flat, mode=windows.PADDING_MODES[case["padding_mode"]])


def dropped(x, case, p, groups, seed):
    """The padded input after the dropout that `kn_conv` draws at this seed."""
    x, rest = windows.pad_input(x, pairs(case), case["padding_mode"])
    torch.manual_seed(seed)
    keep = keep_mask(x.detach().unflatten(1, (groups, -1)), p, draw_seed())
    return windows.zero_pad(x * keep.flatten(1, 2) / (1 - p), rest)


def stats_groups(case):
    """Number of channel groups with statistics of their own."""
    return case["groups"] if case["group_stats"] else 1


def expected_conv(x, weight, bias, case, source):
    """The definition's output, with statistics of `source`."""
    geometry = (case["kernel_size"], case["stride"], case["dilation"])
    stats = reference.window_stats(source, *geometry, stats_groups(case))
    return reference.kn_conv(padded(x, case), *stats, weight, bias, *geometry[1:], case["groups"])


def conv_options(case):
    """What `kn_conv` takes after its tensors."""
    names = ("stride", "padding", "dilation", "groups", "padding_mode", "group_stats")
    return {name: case[name] for name in names}
