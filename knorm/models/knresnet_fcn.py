"""FCN-KNResNet: fully convolutional nets made for kernel normalization, any norm.

Source: Nasirigerdeh et al., Kernel Normalized Convolutional Networks, TMLR 2024, figure 6 and
Table 3. Blocks of 18 and 34 layers have two 3x3 convolutions, those of 50 layers the three of
KNResNet-50; a transition is an activation, a 3x3 convolution and a 3x3 max pooling. Convolutions,
channels and biases are the published ones. The paper does not state: the poolings have stride 2
and padding 1, 3x3 convolutions padding 1, and the `KernelNorm` of the head has kernel 1.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from knorm.choices import NormKind
from knorm.models.common import STEMS, Level, NetOptions, check_count, init_convs, sequence
from knorm.models.knresnet import BOTTLENECK, BlockForm, KNResidualBlock, Stage
from knorm.models.registry import register_model
from knorm.models.resnet import Geometry, check_output_stride, stage_geometries
from knorm.models.segmenter import FeatureMaps, Segmenter, aux_head, check_flag, init_head

STEM_CHANNELS = 64
BASIC_3X3: BlockForm = ((3, 1), (3, 1))


@dataclass(frozen=True)
class KNResNetFCNRow:
    """One depth."""

    stages: tuple[Stage, Stage, Stage, Stage]
    head_unit: bool
    """the head begins with an activation and a 3x3 convolution"""


ROWS = {
    18: KNResNetFCNRow(
        stages=(
            Stage(BASIC_3X3, 2, 64, 128),
            Stage(BASIC_3X3, 2, 128, 256),
            Stage(BASIC_3X3, 2, 256, 512),
            Stage(BASIC_3X3, 1, 512, 625),
        ),
        head_unit=False,
    ),
    34: KNResNetFCNRow(
        stages=(
            Stage(BASIC_3X3, 4, 64, 128),
            Stage(BASIC_3X3, 4, 128, 256),
            Stage(BASIC_3X3, 4, 256, 256),
            Stage(BASIC_3X3, 3, 512, 512),
        ),
        head_unit=False,
    ),
    50: KNResNetFCNRow(
        stages=(
            Stage(BOTTLENECK, 4, 64, 128),
            Stage(BOTTLENECK, 4, 128, 256),
            Stage(BOTTLENECK, 4, 256, 458),
            Stage(BOTTLENECK, 3, 512, 512),
        ),
        head_unit=True,
    ),
}


@dataclass(frozen=True, kw_only=True)
class KNResNetFCNOptions(NetOptions):
    """`NetOptions` with the published dropout, and those that all segmentation nets have."""

    num_classes: int = 19
    """the default is Cityscapes'"""
    norm: NormKind = "kernel"
    dropout_p: float = 0.1
    output_stride: int = 32
    """most input pixels per pixel of the last feature map: 8, 16 or 32, by dilation; 32 is the
    published net"""
    aux: bool = False
    """a second head on the level before the last; its logits come with the others in training"""

    final_dropout_bound: ClassVar[float] = 0.5

    def __post_init__(self):
        super().__post_init__()
        check_count("num_classes", self.num_classes)
        check_output_stride(self.output_stride)
        check_flag("aux", self.aux)


def make_transition(
    options: NetOptions, in_channels: int, out_channels: int, geometry: Geometry
) -> nn.Sequential:
    """A 3x3 convolution and half the resolution, or its dilated equal."""
    dilation = geometry.strided_dilation
    return sequence(
        act=options.make_act(),
        unit=options.make_unit(in_channels, out_channels, 3, padding=dilation, dilation=dilation),
        pool=make_pool(geometry.stride, dilation),
    )


def make_pool(stride: int, dilation: int) -> nn.Module:
    """The 3x3 max pooling: (N, C, H, W) -> (N, C, ceil(H / stride), ceil(W / stride))."""
    if dilation == 1:
        return nn.MaxPool2d(3, stride, padding=1)
    pad = nn.ConstantPad2d(dilation, -float("inf"))  # a pooling pads by half its kernel at most
    return nn.Sequential(pad, nn.MaxPool2d(3, stride, dilation=dilation))


def make_features(
    row: KNResNetFCNRow, options: KNResNetFCNOptions
) -> tuple[nn.Sequential, list[Level]]:
    """Stem, stages and transitions, and the levels of the stages."""
    layers: dict[str, nn.Module] = {}
    levels: dict[str, tuple[int, int]] = {}
    channels, stride = STEM_CHANNELS, 1
    stem_stride = STEMS[options.stem].total_stride
    places = stage_geometries((1,) * len(row.stages), stem_stride, options.output_stride)
    for i, (stage, (place,)) in enumerate(zip(row.stages, places, strict=True), start=1):
        if i > 1:
            transition = make_transition(options, channels, stage.channels, place)
            layers[f"transition{i - 1}"] = transition
        blocks = [KNResidualBlock(options, stage, place.dilation) for _ in range(stage.num_blocks)]
        layers[f"stage{i}"] = nn.Sequential(*blocks)
        channels, stride = stage.channels, stride * place.stride
        levels[f"stage{i}"] = (channels, stride)
    features = sequence(
        stem=options.make_stem(STEM_CHANNELS, act=False),
        stem_pool=options.make_stem_pool(),
        **layers,
    )
    return features, options.levels(STEM_CHANNELS, **levels)


def make_head(row: KNResNetFCNRow, options: KNResNetFCNOptions) -> nn.Sequential:
    """Norm, activation and classifier, in FCN-KNResNet-50 after another convolution."""
    channels = row.stages[-1].channels
    return sequence(
        unit_act=options.make_act() if row.head_unit else None,
        unit=options.make_unit(channels, channels, 3, padding=1) if row.head_unit else None,
        norm=options.make_final_norm(channels),
        act=options.make_act(),
        conv=nn.Conv2d(channels, options.num_classes, 1),
    )


class KNResNetFCN(Segmenter):
    """FCN-KNResNet, (N, in_chans, H, W) -> (N, num_classes, H, W).

    Options: those of `KNResNetFCNOptions`.
    """

    Options: ClassVar = KNResNetFCNOptions

    def __init__(self, row: KNResNetFCNRow, **given: Any):
        options = KNResNetFCNOptions(**given)
        features, levels = make_features(row, options)
        kept = levels[-2:] if options.aux else levels[-1:]
        super().__init__(
            FeatureMaps(features, kept),
            make_head(row, options),
            aux_head(options, kept[0].num_chs, options.num_classes) if options.aux else None,
            options.num_classes,
        )
        init_convs(self.features)
        init_head(self.classifier)
        init_head(self.aux_classifier)


@register_model(task="segmentation")
def fcn_knresnet18(**options: Any) -> KNResNetFCN:
    """FCN-KNResNet-18."""
    return KNResNetFCN(ROWS[18], **options)


@register_model(task="segmentation")
def fcn_knresnet34(**options: Any) -> KNResNetFCN:
    """FCN-KNResNet-34."""
    return KNResNetFCN(ROWS[34], **options)


@register_model(task="segmentation")
def fcn_knresnet50(**options: Any) -> KNResNetFCN:
    """FCN-KNResNet-50."""
    return KNResNetFCN(ROWS[50], **options)
