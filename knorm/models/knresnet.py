"""KNResNet: residual nets made for kernel normalization, any norm.

Source: Nasirigerdeh et al., Kernel Normalized Convolutional Networks, TMLR 2024, figures 3 and 5.
Every unit is an activation and a `KNConv2d` with bias; channels and resolution change only in
transitions, so that all shortcuts are identities. With another norm a unit is activation,
convolution and norm.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from knorm.choices import NormKind
from knorm.models.common import STEMS, Classifier, Level, NetOptions, init_convs, sequence
from knorm.models.registry import register_model
from knorm.models.resnet import Geometry, check_output_stride, stage_geometries

BlockForm = tuple[tuple[int, int], ...]
"""(kernel size, padding) of each convolution of a residual branch"""

BASIC: BlockForm = ((2, 1), (2, 0))
BOTTLENECK: BlockForm = ((2, 1), (3, 1), (2, 0))
BOTTLENECK_1X1: BlockForm = ((1, 0), (3, 1), (1, 0))

Padding = tuple[int, int, int, int]
"""left, right, top, bottom"""


@dataclass(frozen=True)
class Stage:
    """Residual blocks of one resolution: c channels, m inside the blocks."""

    form: BlockForm
    num_blocks: int
    channels: int
    inside: int


@dataclass(frozen=True)
class KNResNetRow:
    """One depth. The stem has as many channels as the first stage, a transition as the next one."""

    stages: tuple[Stage, Stage, Stage, Stage]
    corner_transitions: tuple[bool, bool, bool]
    """2x2 convolutions with padding on one side; otherwise 1x1"""
    tail_channels: int | None
    """of the last 2x2 convolution, after a max pooling; None: there is no tail"""


ROWS = {
    18: KNResNetRow(
        stages=(
            Stage(BASIC, 2, 64, 256),
            Stage(BASIC, 2, 256, 256),
            Stage(BASIC, 1, 512, 512),
            Stage(BASIC, 1, 724, 724),
        ),
        corner_transitions=(True, True, True),
        tail_channels=512,
    ),
    34: KNResNetRow(
        stages=(
            Stage(BASIC, 4, 64, 256),
            Stage(BASIC, 5, 256, 320),
            Stage(BASIC, 3, 512, 640),
            Stage(BASIC, 2, 512, 843),
        ),
        corner_transitions=(True, True, True),
        tail_channels=512,
    ),
    50: KNResNetRow(
        stages=(
            Stage(BOTTLENECK, 4, 256, 64),
            Stage(BOTTLENECK, 5, 512, 128),
            Stage(BOTTLENECK, 4, 810, 201),
            Stage(BOTTLENECK_1X1, 2, 2048, 512),
        ),
        corner_transitions=(True, True, False),
        tail_channels=None,
    ),
}


@dataclass(frozen=True)
class Paddings:
    """What depends on the resolution that the stem leaves: 32x32 or, after a pooling, 56x56."""

    transitions: tuple[Padding, Padding, Padding]
    tail: Padding


LOW_RESOLUTION = Paddings(((1, 0, 1, 0), (0, 1, 0, 1), (1, 0, 1, 0)), tail=(1, 1, 1, 1))
HIGH_RESOLUTION = Paddings(((1, 0, 1, 0), (0, 1, 0, 1), (2, 1, 2, 1)), tail=(0, 0, 0, 0))
ALIGNED = Paddings(((1, 0, 1, 0), (0, 1, 0, 1), (1, 0, 1, 0)), tail=(1, 0, 1, 0))
"""what every pixel sees has its centre within 16 pixels of the image, behind a stem of stride 4"""


@dataclass(frozen=True, kw_only=True)
class KNResNetOptions(NetOptions):
    """`NetOptions` with norm "kernel" by default, and how coarse the features may become."""

    norm: NormKind = "kernel"
    output_stride: int | None = None
    """most input pixels per feature pixel; what would pass it dilates instead, and maps of stride s
    have ceil(H/s) x ceil(W/s) pixels. None: as published, up to 64, pooling drops odd pixels"""

    def __post_init__(self):
        super().__post_init__()
        if self.output_stride is not None:
            check_output_stride(self.output_stride)


def geometries(row: "KNResNetRow", options: KNResNetOptions) -> list[Geometry]:
    """Of the four stages and the tail: the stride and dilation of what leads to each of them
    (`strided_dilation`), and the dilation of what stands there."""
    parts = (1,) * (len(row.stages) + (row.tail_channels is not None))
    limit = options.output_stride or 2 ** len(parts) * STEMS[options.stem].total_stride
    return [first for first, *_ in stage_geometries(parts, STEMS[options.stem].total_stride, limit)]


class AlignedMaxPool2d(nn.Module):
    """The maximum of x and its three neighbours `dilation` below and right, as far as there are.

    (N, C, H, W) -> (N, C, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(self, stride: int, dilation: int):
        super().__init__()
        self.stride = stride
        self.dilation = dilation

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, self.dilation, 0, self.dilation), value=-float("inf"))
        return F.max_pool2d(x, 2, self.stride, dilation=self.dilation)

    def extra_repr(self) -> str:
        return f"stride={self.stride}, dilation={self.dilation}"


def make_pool(options: KNResNetOptions, geometry: Geometry) -> nn.Module:
    """Half the resolution, or its dilated equal."""
    if options.output_stride is None:
        return nn.MaxPool2d(2)
    return AlignedMaxPool2d(geometry.stride, geometry.strided_dilation)


def make_corner_unit(
    options: NetOptions, in_channels: int, out_channels: int, padding: Padding, dilation: int
) -> dict[str, nn.Module | None]:
    """`pad` and `unit`: a 2x2 convolution of the input with that padding around it."""
    left, right, top, bottom = (dilation * p for p in padding)
    symmetric = left == right == top == bottom
    return {
        "pad": None if symmetric else nn.ZeroPad2d((left, right, top, bottom)),
        "unit": options.make_unit(
            in_channels, out_channels, 2, padding=left if symmetric else 0, dilation=dilation
        ),
    }


class KNResidualBlock(nn.Module):
    """x plus activations and convolutions of x: (N, C, H, W) -> the same."""

    def __init__(self, options: NetOptions, stage: Stage, dilation: int = 1):
        super().__init__()
        last = len(stage.form)
        layers: dict[str, nn.Module] = {}
        for i, (kernel_size, padding) in enumerate(stage.form, start=1):
            in_channels = stage.channels if i == 1 else stage.inside
            out_channels = stage.channels if i == last else stage.inside
            layers[f"act{i}"] = options.make_act()
            layers[f"unit{i}"] = options.make_unit(
                in_channels,
                out_channels,
                kernel_size,
                padding=dilation * padding,
                dilation=dilation if kernel_size > 1 else 1,
            )
        self.body = sequence(**layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def make_transition(
    options: KNResNetOptions,
    in_channels: int,
    out_channels: int,
    padding: Padding | None,
    geometry: Geometry,
) -> nn.Sequential:
    """Half the resolution: a 2x2 convolution of the padded input, or 1x1, and a max pooling."""
    if padding is None:
        units = {"unit": options.make_unit(in_channels, out_channels, 1)}
    else:
        dilation = geometry.strided_dilation
        units = make_corner_unit(options, in_channels, out_channels, padding, dilation)
    return sequence(act=options.make_act(), **units, pool=make_pool(options, geometry))


def make_stages(
    row: KNResNetRow, options: KNResNetOptions, paddings: Paddings
) -> dict[str, nn.Module]:
    """`stage1`, `transition1`, `stage2`, ... `stage4`."""
    layers: dict[str, nn.Module] = {}
    places = geometries(row, options)
    for i, (stage, place) in enumerate(zip(row.stages, places, strict=False)):
        if i > 0:
            padding = paddings.transitions[i - 1] if row.corner_transitions[i - 1] else None
            before = row.stages[i - 1].channels
            transition = make_transition(options, before, stage.channels, padding, place)
            layers[f"transition{i}"] = transition
        blocks = [KNResidualBlock(options, stage, place.dilation) for _ in range(stage.num_blocks)]
        layers[f"stage{i + 1}"] = nn.Sequential(*blocks)
    return layers


def make_tail(
    row: KNResNetRow, options: KNResNetOptions, paddings: Paddings
) -> nn.Sequential | None:
    """Max pooling and a 2x2 convolution, in the nets that end with them."""
    if row.tail_channels is None:
        return None
    channels, place = row.stages[-1].channels, geometries(row, options)[-1]
    return sequence(
        pool=make_pool(options, place),
        act=options.make_act(),
        **make_corner_unit(options, channels, row.tail_channels, paddings.tail, place.dilation),
    )


def make_levels(row: KNResNetRow, options: KNResNetOptions) -> list[Level]:
    """The levels: every transition halves the resolution, and so does the tail."""
    channels = {f"stage{i}": stage.channels for i, stage in enumerate(row.stages, start=1)}
    if row.tail_channels is not None:
        channels["tail"] = row.tail_channels
    stages, stride = {}, 1
    for (name, count), place in zip(channels.items(), geometries(row, options), strict=True):
        stride *= place.stride
        stages[name] = (count, stride)
    return options.levels(row.stages[0].channels, **stages)


def choose_paddings(options: KNResNetOptions) -> Paddings:
    """The published ones for the stem, or those that keep the maps aligned."""
    if options.output_stride is not None:
        return ALIGNED
    return HIGH_RESOLUTION if STEMS[options.stem].pool else LOW_RESOLUTION


class KNResNet(Classifier):
    """KNResNet, (N, in_chans, H, W) -> (N, num_classes).

    Options: those of `KNResNetOptions`. Without an output_stride the nets of 18 and 34 layers need
    93x93 pixels or more with a stem that pools, with "cifar" 16x16.
    """

    Options: ClassVar = KNResNetOptions

    def __init__(self, row: KNResNetRow, **given: Any):
        options = KNResNetOptions(**given)
        paddings = choose_paddings(options)
        num_features = row.tail_channels or row.stages[-1].channels
        features = sequence(
            stem=options.make_stem(row.stages[0].channels, act=False),
            stem_pool=options.make_stem_pool(),
            **make_stages(row, options, paddings),
            tail=make_tail(row, options, paddings),
            norm=options.make_final_norm(num_features),
            act=options.make_act(),
        )
        super().__init__(features, make_levels(row, options), options.num_classes)
        init_convs(self)
        if isinstance(self.fc, nn.Linear):
            nn.init.zeros_(self.fc.bias)


@register_model
def knresnet18(**options: Any) -> KNResNet:
    """KNResNet-18."""
    return KNResNet(ROWS[18], **options)


@register_model
def knresnet34(**options: Any) -> KNResNet:
    """KNResNet-34."""
    return KNResNet(ROWS[34], **options)


@register_model
def knresnet50(**options: Any) -> KNResNet:
    """KNResNet-50."""
    return KNResNet(ROWS[50], **options)
