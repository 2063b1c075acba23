"""DenseNet20x16, a small dense net for private training, any norm.

Source: Huang et al., Densely Connected Convolutional Networks, CVPR 2017, in the form of the code
of Nasirigerdeh et al., SaTML 2023: three blocks of five layers, growth 16, 3x3 transitions that
keep the channels. Weights start as torch's.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from knorm.models.common import Classifier, NetOptions, sequence
from knorm.models.registry import register_model

STEM_CHANNELS = 32
GROWTH = 16
DEPTHS = (5, 5, 5)


@dataclass(frozen=True, kw_only=True)
class DenseNetOptions(NetOptions):
    """`NetOptions` for small images; "group" has 16 groups, which divide all channel counts."""

    stem: str = "cifar"
    dropout_p: float = 0.1

    bias: ClassVar[bool | None] = False
    final_dropout_bound: ClassVar[float] = 0.5
    num_groups: ClassVar[int] = 16


class DenseLayer(nn.Module):
    """x and, behind it, new channels made of all of x: (N, C, H, W) -> (N, C + GROWTH, H, W)."""

    def __init__(self, options: NetOptions, channels: int):
        super().__init__()
        self.body = _preact_conv(options, channels, GROWTH)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.body(x)], 1)


class DenseNet20x16(Classifier):
    """DenseNet20x16, (N, in_chans, H, W) -> (N, num_classes).

    Options: those of `DenseNetOptions`; norm "batch" by default.
    """

    Options: ClassVar = DenseNetOptions

    def __init__(self, **given: Any):
        options = DenseNetOptions(**given)
        channels, layers, stages = STEM_CHANNELS, {}, {}
        for i, depth in enumerate(DEPTHS, start=1):
            if i > 1:
                pool = nn.AvgPool2d(2)
                layers[f"transition{i - 1}"] = _preact_conv(options, channels, channels, pool=pool)
            growing = [DenseLayer(options, channels + GROWTH * j) for j in range(depth)]
            layers[f"block{i}"] = nn.Sequential(*growing)
            channels += GROWTH * depth
            stages[f"block{i}"] = (channels, 2 ** (i - 1))
        features = sequence(
            stem=options.make_preact_stem(STEM_CHANNELS),
            stem_pool=options.make_stem_pool(),
            **layers,
            norm=options.make_final_norm(channels),
            act=options.make_act(),
        )
        levels = options.levels(STEM_CHANNELS, **stages)
        super().__init__(features, levels, options.num_classes)


def _preact_conv(
    options: NetOptions, in_channels: int, out_channels: int, **after
) -> nn.Sequential:
    """Norm, activation, a 3x3 convolution and what comes `after` it."""
    return sequence(
        norm=options.make_preact_norm(in_channels),
        act=options.make_act(),
        conv=options.make_conv(in_channels, out_channels, 3, padding=1),
        **after,
    )


@register_model
def densenet20x16(**options: Any) -> DenseNet20x16:
    """DenseNet20x16."""
    return DenseNet20x16(**options)
