"""Residual nets as torchvision lays them out (the stride of a bottleneck is on its 3x3), any norm.

Source: He et al., Deep Residual Learning for Image Recognition, CVPR 2016. With norm="kernel"
every convolution with its norm is a `KNConv2d`, and a 1x1 `KernelNorm2d` stands before pooling.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple, get_args

from torch import Tensor, nn

from knorm.choices import check_name
from knorm.models.common import (
    STEMS,
    Classifier,
    Level,
    NetOptions,
    check_flag,
    init_convs,
    sequence,
)
from knorm.models.registry import register_model

OUTPUT_STRIDES = (8, 16, 32)


@dataclass(frozen=True, kw_only=True)
class ResNetOptions(NetOptions):
    """`NetOptions`, and how coarse the features may become."""

    output_stride: int = 32
    """most input pixels per feature pixel; a stage that would pass it dilates instead"""

    bias: ClassVar[bool | None] = False

    def __post_init__(self):
        super().__post_init__()
        check_output_stride(self.output_stride)


NormScope = Literal["all", "stem"]
Skip = Literal["identity", "unit", "none"]


@dataclass(frozen=True, kw_only=True)
class PlainResNetOptions(ResNetOptions):
    """`ResNetOptions`, and two ways in which published comparisons departed from ResNets."""

    identity_skip: bool = True
    """blocks that need no projection add their input; False: they add nothing, as in the code of
    hongyaohongyao/train_cifar"""
    norm_scope: NormScope = "all"
    """norms of kind `norm`: "all", or that of the "stem", the others being "batch", as there"""

    def __post_init__(self):
        super().__post_init__()
        check_flag("identity_skip", self.identity_skip)
        check_name("norm_scope", self.norm_scope, get_args(NormScope))

    @property
    def others(self) -> "PlainResNetOptions":
        """The options of all that follows the stem."""
        if self.norm_scope == "all":
            return self
        return replace(self, norm="batch", norm_options=None)


def check_output_stride(value: object) -> None:
    """`value` is one of `OUTPUT_STRIDES`."""
    if value not in OUTPUT_STRIDES:
        raise ValueError(f"output_stride takes 8, 16 or 32, got {value!r}")


@dataclass(frozen=True)
class Geometry:
    """Where a block stands: its stride, the dilation of the convolution that would carry a
    stride, and that of the other convolutions."""

    stride: int = 1
    strided_dilation: int = 1
    dilation: int = 1


class Channels(NamedTuple):
    """Of a residual block."""

    inputs: int
    inner: int
    outputs: int


@dataclass(frozen=True)
class BlockForm:
    """The convolutions of a residual branch."""

    kernel_sizes: tuple[int, ...]
    strided: int
    """the position of the one that takes the block's stride"""
    expansion: int
    """output channels over the block's width"""
    inner: int = 1
    """channels inside over the block's width"""
    groups: int = 1
    """of the second convolution"""

    def convs(self, channels: Channels, geometry: Geometry) -> Iterator[dict[str, int]]:
        """The arguments of each convolution."""
        in_channels, last = channels.inputs, len(self.kernel_sizes) - 1
        for i, kernel_size in enumerate(self.kernel_sizes):
            strided = i == self.strided
            dilation = geometry.strided_dilation if strided else geometry.dilation
            dilation = dilation if kernel_size > 1 else 1
            out_channels = channels.outputs if i == last else channels.inner
            yield {
                "in_channels": in_channels,
                "out_channels": out_channels,
                "kernel_size": kernel_size,
                "stride": geometry.stride if strided else 1,
                "padding": dilation * (kernel_size // 2),
                "dilation": dilation,
                "groups": self.groups if i == 1 else 1,
            }
            in_channels = out_channels


BASIC = BlockForm((3, 3), strided=0, expansion=1)
BOTTLENECK = BlockForm((1, 3, 1), strided=1, expansion=4)


@dataclass(frozen=True)
class ResNetRow:
    """One depth: its block and how many of them the four stages have."""

    block: BlockForm
    depths: tuple[int, int, int, int]
    stem_channels: int = 64
    """also the first stage's width, which doubles from stage to stage"""

    @property
    def widths(self) -> tuple[int, ...]:
        """Of the stages."""
        return tuple(self.stem_channels * 2**index for index in range(len(self.depths)))

    @property
    def num_features(self) -> int:
        """Channels of the last stage."""
        return self.widths[-1] * self.block.expansion


ROWS = {
    10: ResNetRow(BASIC, (1, 1, 1, 1)),
    18: ResNetRow(BASIC, (2, 2, 2, 2)),
    34: ResNetRow(BASIC, (3, 4, 6, 3)),
    50: ResNetRow(BOTTLENECK, (3, 4, 6, 3)),
    101: ResNetRow(BOTTLENECK, (3, 4, 23, 3)),
    152: ResNetRow(BOTTLENECK, (3, 8, 36, 3)),
}

Block = Callable[[Any, BlockForm, Channels, Geometry], nn.Module]


def stage_geometries(depths: tuple[int, ...], stem_stride: int, output_stride: int):
    """The geometry of every block, a list for each stage.

    A stage's first block still has the dilation of the stage before, as in torchvision.
    """
    total, dilation = stem_stride, 1
    for index, depth in enumerate(depths):
        stride, before = min(index, 1) + 1, dilation
        if total * stride > output_stride:
            stride, dilation = 1, dilation * stride
        total *= stride
        rest = Geometry(1, dilation, dilation)
        yield [Geometry(stride, before, dilation), *[rest] * (depth - 1)]


def residual_stages(
    block: Block, row: ResNetRow, options: ResNetOptions
) -> dict[str, nn.Sequential]:
    """The stages `layer1` to `layer4`."""
    stages, form, in_channels = {}, row.block, row.stem_channels
    for index, stage in enumerate(_geometries(row, options)):
        width, blocks = row.widths[index], []
        for geometry in stage:
            channels = Channels(in_channels, width * form.inner, width * form.expansion)
            blocks.append(block(options, form, channels, geometry))
            in_channels = channels.outputs
        stages[f"layer{index + 1}"] = nn.Sequential(*blocks)
    return stages


def residual_levels(row: ResNetRow, options: ResNetOptions) -> list[Level]:
    """The levels of a net with these stages."""
    stages, stride = {}, 1
    for index, stage in enumerate(_geometries(row, options)):
        stride *= stage[0].stride
        stages[f"layer{index + 1}"] = (row.widths[index] * row.block.expansion, stride)
    return options.levels(row.stem_channels, **stages)


def _geometries(row: ResNetRow, options: ResNetOptions) -> Iterator[list[Geometry]]:
    stem_stride = STEMS[options.stem].total_stride
    return stage_geometries(row.depths, stem_stride, options.output_stride)


class ResidualBlock(nn.Module):
    """act(body(x) + shortcut(x)): (N, inputs, H, W) -> (N, outputs, H', W').

    skip: the shortcut where input and output have one shape: x itself for "identity", a 1x1 unit
    of x for "unit", nothing for "none"; otherwise it is a 1x1 unit.
    """

    def __init__(
        self,
        options: NetOptions,
        form: BlockForm,
        channels: Channels,
        geometry: Geometry,
        skip: Skip = "identity",
    ):
        super().__init__()
        layers: dict[str, nn.Module] = {}
        for i, conv in enumerate(form.convs(channels, geometry)):
            if layers:
                layers[f"act{i}"] = options.make_act()
            layers[f"unit{i + 1}"] = options.make_unit(**conv)
        self.body = sequence(**layers)
        self.shortcut: nn.Module | None = nn.Identity() if skip == "identity" else None
        if skip == "unit" or geometry.stride != 1 or channels.inputs != channels.outputs:
            self.shortcut = options.make_unit(channels.inputs, channels.outputs, 1, geometry.stride)
        self.act = options.make_act()

    def forward(self, x: Tensor) -> Tensor:
        out = self.body(x)
        return self.act(out if self.shortcut is None else out + self.shortcut(x))


class ResNet(Classifier):
    """ResNet, (N, in_chans, H, W) -> (N, num_classes).

    Options: those of `PlainResNetOptions`; norm "batch" by default.
    """

    Options: ClassVar = PlainResNetOptions

    def __init__(self, row: ResNetRow, **given: Any):
        options = PlainResNetOptions(**given)
        block = partial(ResidualBlock, skip="identity" if options.identity_skip else "none")
        features = sequence(
            stem=options.make_stem(row.stem_channels, act=True),
            stem_pool=options.make_stem_pool(),
            **residual_stages(block, row, options.others),
            norm=options.others.make_final_kernel_norm(row.num_features),
        )
        super().__init__(features, residual_levels(row, options), options.num_classes)
        init_convs(self)


@register_model
def resnet10(**options: Any) -> ResNet:
    """ResNet-10: one block a stage."""
    return ResNet(ROWS[10], **options)


@register_model
def resnet18(**options: Any) -> ResNet:
    """ResNet-18."""
    return ResNet(ROWS[18], **options)


@register_model
def resnet34(**options: Any) -> ResNet:
    """ResNet-34."""
    return ResNet(ROWS[34], **options)


@register_model
def resnet50(**options: Any) -> ResNet:
    """ResNet-50."""
    return ResNet(ROWS[50], **options)


@register_model
def resnet101(**options: Any) -> ResNet:
    """ResNet-101."""
    return ResNet(ROWS[101], **options)


@register_model
def resnet152(**options: Any) -> ResNet:
    """ResNet-152."""
    return ResNet(ROWS[152], **options)
