"""Wide residual nets for small images as private training has them, any norm.

Source: De et al., Unlocking High-Accuracy Differentially Private Image Classification through
Scale, arXiv:2204.13650, and its code: each activation stands before its norm, shortcuts have norms
of their own, convolutions have biases, their filters are standardized. Widths and depths are those
of Zagoruyko and Komodakis, BMVC 2016. With norm="kernel" a `KNConv2d` takes the place of a norm and
its convolution, shortcuts included.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from knorm.choices import NormKind
from knorm.models.common import Classifier, scaled, sequence
from knorm.models.compact import CompactOptions
from knorm.models.registry import register_model

STEM_CHANNELS = 16
STAGES = 3
SMALLEST_NORM = 1e-4  # of a filter's squares, which it is divided by


class StandardizedConv2d(nn.Conv2d):
    """A convolution whose filters are centred and brought to the norm `gain`, which is learned.

    Source: Brock et al., arXiv:2101.08692, with the filters' norm in place of their deviation.
    """

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self.gain = nn.Parameter(torch.ones(self.out_channels))

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch's name for it
        var, mean = torch.var_mean(self.weight, (1, 2, 3), correction=0, keepdim=True)
        squares = var * math.prod(self.weight.shape[1:])
        scale = squares.clamp(min=SMALLEST_NORM).rsqrt() * self.gain.view(-1, 1, 1, 1)
        return self._conv_forward(input, (self.weight - mean) * scale, self.bias)


@dataclass(frozen=True, kw_only=True)
class WideResNetOptions(CompactOptions):
    """`CompactOptions`, group-normalized by default, and what becomes of the filters."""

    norm: NormKind = "group"
    standardized: bool = False
    """standardize the filters of all convolutions, as published; not for "kernel" """

    bias: ClassVar[bool | None] = True
    num_groups: ClassVar[int] = 16

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.standardized, bool):
            raise ValueError(f"standardized takes True or False, got {self.standardized!r}")
        if self.standardized and self.norm == "kernel":
            raise ValueError("standardized is not for norm 'kernel', which has no such layer")

    def make_conv(self, *args: int, **options) -> nn.Module:
        """A convolution of this net's kind, (in, out, kernel, stride=1, padding=0)."""
        make = StandardizedConv2d if self.standardized else super().make_conv
        return make(*args, **options)


class WideBlock(nn.Module):
    """body(x) + shortcut, x or its 1x1 convolution: (N, C, H, W) -> (N, out_channels, H', W')."""

    def __init__(
        self, options: WideResNetOptions, in_channels: int, out_channels: int, stride: int
    ):
        super().__init__()
        self.body = sequence(
            act1=options.make_act(),
            norm1=options.make_preact_norm(in_channels),
            conv1=options.make_conv(in_channels, out_channels, 3, stride, 1),
            act2=options.make_act(),
            norm2=options.make_preact_norm(out_channels),
            conv2=options.make_conv(out_channels, out_channels, 3, 1, 1),
        )
        self.shortcut: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            self.shortcut = sequence(
                act=options.make_act(),
                norm=options.make_preact_norm(in_channels),
                conv=options.make_conv(in_channels, out_channels, 1, stride),
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return self.body(x) + shortcut


class WideResNet(Classifier):
    """Wide ResNet, (N, in_chans, H, W) -> (N, num_classes).

    Options: those of `WideResNetOptions`.
    """

    Options: ClassVar = WideResNetOptions

    def __init__(self, depth: int, widening: int, **given: Any):
        options = WideResNetOptions(**given)
        stem_channels = scaled(STEM_CHANNELS, options.width)
        in_channels, stages, levels = stem_channels, {}, {}
        for stage in range(STAGES):
            channels = stem_channels * widening * 2**stage
            blocks = []
            for block in range((depth - 4) // (2 * STAGES)):
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(WideBlock(options, in_channels, channels, stride))
                in_channels = channels
            stages[f"layer{stage + 1}"] = nn.Sequential(*blocks)
            levels[f"layer{stage + 1}"] = (channels, 2**stage)
        features = sequence(
            stem=options.make_preact_stem(stem_channels),
            stem_pool=options.make_stem_pool(),
            **stages,
            act=options.make_act(),
            norm=options.make_final_norm(in_channels),
        )
        super().__init__(features, options.levels(stem_channels, **levels), options.num_classes)
        init_by_fan_in(self)


def init_by_fan_in(net: nn.Module) -> None:
    """Weights normal with variance 1 / fan-in, biases 0, as published."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


@register_model
def wide_resnet16_4(**options: Any) -> WideResNet:
    """WRN-16-4."""
    return WideResNet(16, 4, **options)


@register_model
def wide_resnet40_4(**options: Any) -> WideResNet:
    """WRN-40-4."""
    return WideResNet(40, 4, **options)
