"""One convolution with its normalization, in every way that is compared, for `layer_speed`."""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from knorm import KNConv2d, create_model
from knorm.norms import make_norm

DROPOUT = 0.05  # of the statistics, as in the published nets
EPS = 1e-5  # as ours
MOST_NAIVE_BYTES = 2**32  # of one copy of the windows; naive code has several
NUM_CLASSES = 10


class Shape(NamedTuple):
    """A convolution and its input, without the batch."""

    in_channels: int
    out_channels: int
    kernel_size: int
    stride: int
    padding: int
    height: int
    width: int

    def __str__(self) -> str:
        conv = f"{self.in_channels}-{self.out_channels}, {self.kernel_size}x{self.kernel_size}"
        step = "" if self.stride == 1 else f" / {self.stride}"
        return f"{conv}{step} on {self.height}x{self.width}"

    @property
    def out(self) -> tuple[int, int]:
        """Height and width of the output."""
        cut = self.kernel_size - 2 * self.padding - self.stride
        return (self.height - cut) // self.stride, (self.width - cut) // self.stride


class Size(NamedTuple):
    """Nets, and a batch of images that they are for."""

    nets: tuple[str, ...]
    batch_size: int
    height: int
    width: int
    options: Mapping[str, Any]


RESNETS = ("knresnet18", "knresnet34", "knresnet50")
SIZES = {
    "cifar": Size(RESNETS, 16, 32, 32, {"stem": "cifar"}),
    "imagenet": Size(RESNETS, 2, 224, 224, {"stem": "imagenet"}),
    "cityscapes": Size(("knresnet50_fcn",), 1, 512, 1024, {}),
}


class Naive(nn.Module):
    """Kernel normalization as its formula stands: unfold, drop, normalize, multiply.

    (N, C, H, W) -> (N, O, H', W'). A unit U is a window over all channels; its mean and biased
    variance are those of dropout(U); the output is the product of (U - mean) / sqrt(var + eps)
    with the filters. Source: Nasirigerdeh et al., TMLR 2024, section 3.
    """

    def __init__(self, conv: KNConv2d):
        super().__init__()
        self.weight, self.dropout_p = conv.weight, conv.dropout_p
        self.window = {
            "kernel_size": conv.kernel_size, "stride": conv.stride, "padding": conv.padding
        }  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        dropped = F.dropout(x, self.dropout_p, self.training)
        var, mean = torch.var_mean(F.unfold(dropped, **self.window), 1, correction=0, keepdim=True)
        units = (F.unfold(x, **self.window) - mean) / (var + EPS).sqrt()
        out = self.weight.flatten(1) @ units
        sizes = zip(x.shape[2:], *self.window.values(), strict=True)
        return out.unflatten(2, [(n + 2 * p - k) // s + 1 for n, k, s, p in sizes])


def conv_of(shape: Shape) -> nn.Conv2d:
    """The plain convolution."""
    return nn.Conv2d(*shape[:5], bias=False)


def with_norm(kind: Any) -> Callable[[Shape], nn.Module]:
    """The convolution with a norm of its output."""

    def make(shape: Shape) -> nn.Module:
        options = {"groups": math.gcd(32, shape.out_channels)} if kind == "group" else {}
        norm = make_norm(kind, shape.out_channels, dims=2, **options)
        return nn.Sequential(conv_of(shape), norm)

    return make


def kernel(shape: Shape) -> KNConv2d:
    """Ours."""
    return KNConv2d(*shape[:5], bias=False, dropout_p=DROPOUT)


ALONE, BASE, OURS, NAIVE = "conv", "conv + batch", "KNConv", "naive"
VARIANTS: dict[str, Callable[[Shape], nn.Module]] = {
    ALONE: conv_of,
    BASE: with_norm("batch"),
    "conv + group": with_norm("group"),
    "conv + layer": with_norm("layer"),
    OURS: kernel,
    NAIVE: lambda shape: Naive(kernel(shape)),
}


def fits(name: str, shape: Shape, batch_size: int) -> bool:
    """Whether it is measured: naive windows may take more memory than there is."""
    windows = batch_size * shape.in_channels * shape.kernel_size**2 * math.prod(shape.out)
    return name != NAIVE or 4 * windows <= MOST_NAIVE_BYTES


def check_naive(shape: Shape) -> None:
    """Naive code gives what ours gives, outputs and gradients, where nothing is dropped."""
    ours = kernel(shape).double()
    ours.dropout_p = 0.0
    x = torch.randn(2, shape.in_channels, shape.height, shape.width, dtype=torch.float64)
    found = []
    for net in (ours, Naive(ours)):
        source = x.clone().requires_grad_()
        out = net(source)
        found.append((out, *torch.autograd.grad(out.pow(2).sum(), [source, ours.weight])))
    torch.testing.assert_close(*found)


def shapes_of(size: Size) -> Counter[Shape]:
    """Every kernel-normalized convolution of the nets, and how often it is there."""
    found: Counter[Shape] = Counter()

    def note(conv: nn.Module, inputs: tuple[Tensor], _: Tensor) -> None:
        assert isinstance(conv, KNConv2d)
        found[
            Shape(
                conv.in_channels,
                conv.out_channels,
                conv.kernel_size[0],
                conv.stride[0],
                int(conv.padding[0]),
                *inputs[0].shape[2:],
            )
        ] += 1

    for name in size.nets:
        net = create_model(name, num_classes=NUM_CLASSES, **size.options).eval()
        for module in net.modules():
            if isinstance(module, KNConv2d):
                module.register_forward_hook(note)
        with torch.no_grad():
            net(torch.zeros(1, 3, size.height, size.width))
    return found
