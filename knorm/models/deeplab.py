"""DeepLabV3+ over any backbone.

Source: Chen et al., Encoder-Decoder with Atrous Separable Convolution for Semantic Image
Segmentation, ECCV 2018 (arXiv:1802.02611), in the form that the paper has over ResNets: plain
convolutions, not the separable ones of its Xception. Dropout as in its code. Two things are as in
detectron2: the branch of the pooled image has a convolution with bias instead of a norm, since a
1x1 map has no statistics (that of norm="kernel" is a `KNConv2d`: its unit is all channels of the
pixel); and feature maps may be of any stride.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from knorm.models.backbones import before_last, last, low, make_backbone
from knorm.models.common import NetOptions, sequence
from knorm.models.registry import register_model
from knorm.models.segmenter import (
    HEAD_DROPOUT,
    Segmenter,
    SegmenterOptions,
    aux_head,
    init_head,
    resize,
)

RATES, RATES_STRIDE = (6, 12, 18), 16  # of the 3x3 convolutions, on maps of that stride
LOW_CHANNELS = 48


@dataclass(frozen=True, kw_only=True)
class DeepLabOptions(SegmenterOptions):
    """`SegmenterOptions` with the paper's channels and stride."""

    output_stride: int | None = 16
    head_channels: int = 256


def rates_of(stride: int) -> tuple[int, ...]:
    """Dilations for maps of that stride: (6, 12, 18) for 16, (12, 24, 36) for 8."""
    return tuple(max(1, rate * RATES_STRIDE // stride) for rate in RATES)


def unit_and_act(options: NetOptions, *shape: int, **conv: int) -> nn.Sequential:
    """A unit and its activation."""
    return sequence(unit=options.make_unit(*shape, **conv), act=options.make_act())


class ImagePooling(nn.Module):
    """The mean pixel, a convolution of it, everywhere: (N, C, H, W) -> (N, out_channels, H, W)."""

    def __init__(self, options: NetOptions, in_channels: int, out_channels: int):
        super().__init__()
        kernel = options.norm == "kernel"
        make = options.make_conv if kernel else nn.Conv2d
        self.conv = make(in_channels, out_channels, 1)
        self.act = options.make_act()

    def forward(self, x: Tensor) -> Tensor:
        pixel = F.adaptive_avg_pool2d(x, 1)
        return self.act(self.conv(pixel)).expand(-1, -1, *x.shape[2:])


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: (N, in_channels, H, W) -> (N, channels, H, W)."""

    def __init__(
        self, options: NetOptions, in_channels: int, channels: int, rates: tuple[int, ...]
    ):
        super().__init__()
        shape = in_channels, channels
        pyramid = [unit_and_act(options, *shape, 3, padding=rate, dilation=rate) for rate in rates]
        self.branches = nn.ModuleList(
            [unit_and_act(options, *shape, 1), *pyramid, ImagePooling(options, *shape)]
        )
        self.project = unit_and_act(options, len(self.branches) * channels, channels, 1)
        self.dropout = nn.Dropout(HEAD_DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.project(torch.cat([branch(x) for branch in self.branches], 1)))


class Decoder(nn.Module):
    """Coarse and fine maps -> logits of the fine one's size.

    (N, C, H, W) and (N, low_channels, H', W') -> (N, num_classes, H', W').
    """

    def __init__(
        self,
        options: NetOptions,
        low_channels: int,
        in_channels: int,
        channels: int,
        *,
        num_classes: int,
        rates: tuple[int, ...],
    ):
        super().__init__()
        self.aspp = ASPP(options, in_channels, channels, rates)
        self.low = unit_and_act(options, low_channels, LOW_CHANNELS, 1)
        self.fuse = sequence(
            unit1=options.make_unit(channels + LOW_CHANNELS, channels, 3, padding=1),
            act1=options.make_act(),
            unit2=options.make_unit(channels, channels, 3, padding=1),
            norm=options.make_final_kernel_norm(channels),
            act2=options.make_act(),
        )
        self.conv = nn.Conv2d(channels, num_classes, 1)

    def forward(self, x: Tensor, fine: Tensor) -> Tensor:
        fine = self.low(fine)
        return self.conv(self.fuse(torch.cat([resize(self.aspp(x), fine), fine], 1)))


class DeepLabV3Plus(Segmenter):
    """DeepLabV3+ over a backbone, (N, in_chans, H, W) -> (N, num_classes, H, W).

    Options: those of `DeepLabOptions`. The backbone is one of `knorm.list_models()` or
    `timm:<name>`; it has a map of stride 4 or finer. Where it takes no output_stride, that is None.
    """

    Options: ClassVar = DeepLabOptions

    def __init__(self, backbone: str, **given: Any):
        options = DeepLabOptions(**given)
        picks = (low, before_last, last) if options.aux else (low, last)
        features, levels, head_options = make_backbone(backbone, options, picks)
        decoder = Decoder(
            head_options,
            levels[0].num_chs,
            levels[-1].num_chs,
            options.head_channels,
            num_classes=options.num_classes,
            rates=rates_of(levels[-1].reduction),
        )
        aux = None
        if options.aux:
            aux = aux_head(head_options, levels[-2].num_chs, options.num_classes)
        super().__init__(features, decoder, aux, options.num_classes)
        init_head(self.classifier)
        init_head(self.aux_classifier)

    def decode(self, maps: list[Tensor]) -> Tensor:
        """The last map, and the finest beside it -> logits of the finest one's size."""
        return self.classifier(maps[-1], maps[0])


@register_model(task="segmentation")
def deeplabv3plus(*, backbone: str = "resnet50", **options: Any) -> DeepLabV3Plus:
    """DeepLabV3+ over the backbone of that name."""
    return DeepLabV3Plus(backbone, **options)


@register_model(task="segmentation")
def deeplabv3plus_resnet50(**options: Any) -> DeepLabV3Plus:
    """DeepLabV3+ over ResNet-50."""
    return DeepLabV3Plus("resnet50", **options)
