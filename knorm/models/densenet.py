"""Dense nets: each layer sees the outputs of all before it in its block, any norm.

Source: Huang et al., Densely Connected Convolutional Networks, CVPR 2017. DenseNet-121 to -201 are
its DenseNet-BC for small images (no pooling behind the stem), as in the code of
hongyaohongyao/train_cifar. DenseNet20x16, for private training, is that of the code of Nasirigerdeh
et al., SaTML 2023: 3x3 transitions that keep the channels. DenseNet-like, of
theabhirath/cifar10-experiments, has its norms and activations after convolutions, with biases.
Weights start as torch's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from knorm.models.common import STEMS, Classifier, NetOptions, Stem, check_count, sequence
from knorm.models.registry import register_model


@dataclass(frozen=True, kw_only=True)
class DenseNetRow:
    """One net."""

    growth: int
    """channels that a layer adds"""
    depths: tuple[int, ...]
    """layers of each block"""
    stem_channels: int
    bottleneck: int = 4
    """channels between a layer's 1x1 and 3x3 convolution over growth; 0: no 1x1 convolution"""
    compression: float = 0.5
    """channels after a transition over those before, rounded down"""
    transition_kernel: int = 1
    new_first: bool = False
    """a layer's new channels stand before the old ones"""
    preact: bool = True
    """norms and activations stand before convolutions"""


ROWS = {
    20: DenseNetRow(
        growth=16,
        depths=(5, 5, 5),
        stem_channels=32,
        bottleneck=0,
        compression=1.0,
        transition_kernel=3,
    ),
    121: DenseNetRow(growth=32, depths=(6, 12, 24, 16), stem_channels=64, new_first=True),
    161: DenseNetRow(growth=48, depths=(6, 12, 36, 24), stem_channels=96, new_first=True),
    169: DenseNetRow(growth=32, depths=(6, 12, 32, 32), stem_channels=64, new_first=True),
    201: DenseNetRow(growth=32, depths=(6, 12, 48, 32), stem_channels=64, new_first=True),
}


@dataclass(frozen=True, kw_only=True)
class DenseNetOptions(NetOptions):
    """`NetOptions`; behind the stem "imagenet" blocks begin at a quarter of the resolution."""

    bias: ClassVar[bool | None] = False


@dataclass(frozen=True, kw_only=True)
class DenseNet20x16Options(DenseNetOptions):
    """`NetOptions` for small images; "group" has 16 groups, which divide all channel counts."""

    stem: str = "cifar"
    dropout_p: float = 0.1

    final_dropout_bound: ClassVar[float] = 0.5
    num_groups: ClassVar[int] = 16


@dataclass(frozen=True, kw_only=True)
class DenseNetLikeOptions(DenseNetOptions):
    """`NetOptions` for small images, and the net's size."""

    stem: str = "cifar"
    chunks: int = 4
    """blocks with a transition; one more block follows"""
    growth: int = 12
    """channels that a layer adds; the stem has four times as many"""
    layers: int = 8
    """layers of each block"""

    bias: ClassVar[bool | None] = True
    stems: ClassVar[Mapping[str, Stem]] = STEMS | {"cifar": Stem(5, 1, pool=False, bare=False)}

    def __post_init__(self):
        super().__post_init__()
        for name in ("chunks", "growth", "layers"):
            check_count(name, getattr(self, name))

    @property
    def row(self) -> DenseNetRow:
        """The net."""
        return DenseNetRow(
            growth=self.growth,
            depths=(self.layers,) * (self.chunks + 1),
            stem_channels=4 * self.growth,
            preact=False,
        )


class DenseLayer(nn.Module):
    """x and new channels made of all of x: (N, C, H, W) -> (N, C + growth, H, W)."""

    def __init__(self, options: NetOptions, row: DenseNetRow, channels: int):
        super().__init__()
        inner = row.bottleneck * row.growth
        self.reduce = _conv(options, row, channels, inner, 1) if inner else None
        self.body = _conv(options, row, inner or channels, row.growth, 3)
        self.new_first = row.new_first

    def forward(self, x: Tensor) -> Tensor:
        new = self.body(x if self.reduce is None else self.reduce(x))
        return torch.cat([new, x] if self.new_first else [x, new], 1)

    def extra_repr(self) -> str:
        return f"new_first={self.new_first}"


class DenseNet(Classifier):
    """A dense net, (N, in_chans, H, W) -> (N, num_classes).

    Options: those of `DenseNetOptions`; norm "batch" by default.
    """

    Options: ClassVar[type[NetOptions]] = DenseNetOptions

    def __init__(self, row: DenseNetRow, options: DenseNetOptions):
        channels, layers, stages = row.stem_channels, {}, {}
        for i, depth in enumerate(row.depths, start=1):
            if i > 1:
                kept = int(channels * row.compression)
                transition = _conv(options, row, channels, kept, row.transition_kernel)
                transition.add_module("pool", nn.AvgPool2d(2))
                layers[f"transition{i - 1}"], channels = transition, kept
            growing = [DenseLayer(options, row, channels + row.growth * j) for j in range(depth)]
            layers[f"block{i}"] = nn.Sequential(*growing)
            channels += row.growth * depth
            stages[f"block{i}"] = (channels, 2 ** (i - 1))
        features = sequence(
            stem=_stem(options, row),
            stem_pool=options.make_stem_pool(),
            **layers,
            **_end(options, row, channels),
        )
        levels = options.levels(row.stem_channels, **stages)
        super().__init__(features, levels, options.num_classes)


class DenseNet20x16(DenseNet):
    """DenseNet20x16, (N, in_chans, H, W) -> (N, num_classes).

    Options: those of `DenseNet20x16Options`; norm "batch" by default.
    """

    Options: ClassVar = DenseNet20x16Options


class DenseNetLike(DenseNet):
    """DenseNet-like, (N, in_chans, H, W) -> (N, num_classes).

    Options: those of `DenseNetLikeOptions`; norm "batch" by default.
    """

    Options: ClassVar = DenseNetLikeOptions


def _conv(
    options: NetOptions, row: DenseNetRow, in_channels: int, out_channels: int, kernel_size: int
) -> nn.Sequential:
    """A convolution that keeps the resolution, with norm and activation on the row's side."""
    args, padding = (in_channels, out_channels, kernel_size), kernel_size // 2
    if not row.preact:
        return sequence(unit=options.make_unit(*args, padding=padding), act=options.make_act())
    return sequence(
        norm=options.make_preact_norm(in_channels),
        act=options.make_act(),
        conv=options.make_conv(*args, padding=padding),
    )


def _stem(options: NetOptions, row: DenseNetRow) -> nn.Sequential:
    if row.preact:
        return options.make_preact_stem(row.stem_channels)
    return options.make_stem(row.stem_channels, act=True)


def _end(options: NetOptions, row: DenseNetRow, channels: int) -> dict[str, nn.Module | None]:
    """What stands before pooling."""
    if row.preact:
        return {"norm": options.make_final_norm(channels), "act": options.make_act()}
    return {"norm": options.make_final_kernel_norm(channels)}


@register_model
def densenet20x16(**options: Any) -> DenseNet20x16:
    """DenseNet20x16."""
    return DenseNet20x16(ROWS[20], DenseNet20x16Options(**options))


@register_model
def densenet121(**options: Any) -> DenseNet:
    """DenseNet-121."""
    return DenseNet(ROWS[121], DenseNetOptions(**options))


@register_model
def densenet161(**options: Any) -> DenseNet:
    """DenseNet-161."""
    return DenseNet(ROWS[161], DenseNetOptions(**options))


@register_model
def densenet169(**options: Any) -> DenseNet:
    """DenseNet-169."""
    return DenseNet(ROWS[169], DenseNetOptions(**options))


@register_model
def densenet201(**options: Any) -> DenseNet:
    """DenseNet-201."""
    return DenseNet(ROWS[201], DenseNetOptions(**options))


@register_model
def densenetlike(**given: Any) -> DenseNetLike:
    """DenseNet-like."""
    options = DenseNetLikeOptions(**given)
    return DenseNetLike(options.row, options)
