"""Residual nets as torchvision lays them out (the stride of a bottleneck is on its 3x3), any norm.

Source: He et al., Deep Residual Learning for Image Recognition, CVPR 2016. With norm="kernel"
every convolution with its norm is a `KNConv2d`, and a 1x1 `KernelNorm2d` stands before pooling.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from knorm.models.common import STEMS, Classifier, Level, NetOptions, init_convs, sequence
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


@dataclass(frozen=True)
class BlockForm:
    """The convolutions of a residual branch."""

    kernel_sizes: tuple[int, ...]
    strided: int
    """the position of the one that takes the block's stride"""
    expansion: int
    """output channels over those inside"""

    def convs(self, in_channels: int, width: int, geometry: Geometry) -> Iterator[dict[str, int]]:
        """The arguments of each convolution."""
        last = len(self.kernel_sizes) - 1
        for i, kernel_size in enumerate(self.kernel_sizes):
            strided = i == self.strided
            dilation = geometry.strided_dilation if strided else geometry.dilation
            dilation = dilation if kernel_size > 1 else 1
            out_channels = width * self.expansion if i == last else width
            yield {
                "in_channels": in_channels,
                "out_channels": out_channels,
                "kernel_size": kernel_size,
                "stride": geometry.stride if strided else 1,
                "padding": dilation * (kernel_size // 2),
                "dilation": dilation,
            }
            in_channels = out_channels


BASIC = BlockForm((3, 3), strided=0, expansion=1)
BOTTLENECK = BlockForm((1, 3, 1), strided=1, expansion=4)


@dataclass(frozen=True)
class ResNetRow:
    """One depth: its block and how many of them the four stages have."""

    block: BlockForm
    depths: tuple[int, int, int, int]

    @property
    def num_features(self) -> int:
        """Channels of the last stage."""
        return 512 * self.block.expansion


ROWS = {
    18: ResNetRow(BASIC, (2, 2, 2, 2)),
    34: ResNetRow(BASIC, (3, 4, 6, 3)),
    50: ResNetRow(BOTTLENECK, (3, 4, 6, 3)),
    101: ResNetRow(BOTTLENECK, (3, 4, 23, 3)),
    152: ResNetRow(BOTTLENECK, (3, 8, 36, 3)),
}

Block = Callable[[ResNetOptions, BlockForm, int, int, Geometry], nn.Module]


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
    """The stages `layer1` to `layer4`, 64 channels times the block's expansion at first."""
    stages, channels = {}, 64
    stem_stride = STEMS[options.stem].total_stride
    geometries = stage_geometries(row.depths, stem_stride, options.output_stride)
    for index, stage in enumerate(geometries):
        width, blocks = 64 * 2**index, []
        for geometry in stage:
            blocks.append(block(options, row.block, channels, width, geometry))
            channels = width * row.block.expansion
        stages[f"layer{index + 1}"] = nn.Sequential(*blocks)
    return stages


def residual_levels(row: ResNetRow, options: ResNetOptions) -> list[Level]:
    """The levels of a net with these stages."""
    stages, stride = {}, 1
    stem_stride = STEMS[options.stem].total_stride
    geometries = stage_geometries(row.depths, stem_stride, options.output_stride)
    for index, stage in enumerate(geometries):
        stride *= stage[0].stride
        stages[f"layer{index + 1}"] = (64 * 2**index * row.block.expansion, stride)
    return options.levels(64, **stages)


class ResidualBlock(nn.Module):
    """act(body(x) + shortcut(x)): (N, in_channels, H, W) -> (N, expansion * width, H', W')."""

    def __init__(
        self,
        options: ResNetOptions,
        form: BlockForm,
        in_channels: int,
        width: int,
        geometry: Geometry,
    ):
        super().__init__()
        layers: dict[str, nn.Module] = {}
        for i, conv in enumerate(form.convs(in_channels, width, geometry)):
            if layers:
                layers[f"act{i}"] = options.make_act()
            layers[f"unit{i + 1}"] = options.make_unit(**conv)
        self.body = sequence(**layers)
        self.shortcut = nn.Identity()
        out_channels, stride = width * form.expansion, geometry.stride
        if stride != 1 or in_channels != out_channels:
            self.shortcut = options.make_unit(in_channels, out_channels, 1, stride)
        self.act = options.make_act()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.body(x) + self.shortcut(x))


class ResNet(Classifier):
    """ResNet, (N, in_chans, H, W) -> (N, num_classes).

    Options: those of `ResNetOptions`; norm "batch" by default.
    """

    Options: ClassVar = ResNetOptions

    def __init__(self, row: ResNetRow, **given: Any):
        options = ResNetOptions(**given)
        features = sequence(
            stem=options.make_stem(64, act=True),
            stem_pool=options.make_stem_pool(),
            **residual_stages(ResidualBlock, row, options),
            norm=options.make_final_kernel_norm(row.num_features),
        )
        super().__init__(features, residual_levels(row, options), options.num_classes)
        init_convs(self)


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
