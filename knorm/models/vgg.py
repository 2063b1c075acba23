"""Plain stacks of 3x3 convolutions with pooling between them, any norm.

Sources: VGG-11 to VGG-19 of Simonyan and Zisserman, ICLR 2015, for small images: a norm after every
convolution, and a linear classifier behind the pooled map, as in the code of
hongyaohongyao/train_cifar. VGG-like of theabhirath/cifar10-experiments: a 5x5 stem, blocks that
double the channels, dropout, a hidden layer. All convolutions have biases; weights start as
torch's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from knorm.models.common import (
    STEMS,
    Classifier,
    HiddenLayers,
    NetOptions,
    Stem,
    check_count,
    check_counts,
    check_probability,
    sequence,
)
from knorm.models.registry import register_model

IMAGE_SIDE = 32  # for which `VGGLike` flattens its last map as it is


@dataclass(frozen=True)
class VGGRow:
    """One size."""

    stem: int
    """output channels of the first convolution"""
    stages: tuple[tuple[int, ...], ...]
    """output channels of the others; pooling follows each stage"""


def stages_of(depths: tuple[int, ...]) -> VGGRow:
    """So many convolutions in the stages, the first of them as the stem."""
    widths = (64, 128, 256, 512, 512)
    whole = [(width,) * depth for width, depth in zip(widths, depths, strict=True)]
    return VGGRow(widths[0], (whole[0][1:], *whole[1:]))


ROWS = {
    11: stages_of((1, 1, 2, 2, 2)),
    13: stages_of((2, 2, 2, 2, 2)),
    16: stages_of((2, 2, 3, 3, 3)),
    19: stages_of((2, 2, 4, 4, 4)),
}


@dataclass(frozen=True, kw_only=True)
class VGGOptions(NetOptions):
    """`NetOptions`, and dropout; the first layers are the same for any stem."""

    stem: str = "cifar"
    drop: float = 0.0
    """dropout of whole channels after each convolution that neither pooling follows nor the stem
    holds"""
    dense: Sequence[int] = ()
    """sizes of the hidden layers between the pooled map and the classifier"""
    dense_drop: float = 0.0
    """dropout in the hidden layers"""

    bias: ClassVar[bool | None] = True
    stems: ClassVar[Mapping[str, Stem]] = dict.fromkeys(("cifar", "imagenet"), STEMS["cifar"])

    def __post_init__(self):
        super().__post_init__()
        check_probability("drop", self.drop)
        check_counts("dense", self.dense, least=0)
        check_probability("dense_drop", self.dense_drop)


@dataclass(frozen=True, kw_only=True)
class VGGLikeOptions(VGGOptions):
    """`VGGOptions` with the published defaults, and the net's size."""

    width: int = 32
    """output channels of the stem; each block doubles them"""
    blocks: int = 3
    """each halves the resolution"""
    layers: int = 2
    """convolutions of a block"""
    drop: float = 0.2
    dense: Sequence[int] = (128,)
    dense_drop: float = 0.2

    stems: ClassVar[Mapping[str, Stem]] = dict.fromkeys(
        ("cifar", "imagenet"), Stem(5, 1, pool=False, bare=False)
    )

    def __post_init__(self):
        super().__post_init__()
        for name in ("width", "blocks", "layers"):
            check_count(name, getattr(self, name))

    @property
    def row(self) -> VGGRow:
        """The channels."""
        widths = [self.width * 2**index for index in range(self.blocks)]
        return VGGRow(self.width, tuple((*(c,) * (self.layers - 1), 2 * c) for c in widths))


class VGG(Classifier):
    """VGG, (N, in_chans, H, W) -> (N, num_classes).

    Options: those of `VGGOptions`; norm "batch" by default.
    """

    Options: ClassVar[type[NetOptions]] = VGGOptions

    def __init__(self, row: VGGRow, options: VGGOptions, *, pool_size: int = 1):
        channels, stages, levels = row.stem, {}, {}
        for index, widths in enumerate(row.stages, start=1):
            stages[f"layer{index}"] = make_stage(options, channels, widths)
            channels = (channels, *widths)[-1]
            levels[f"layer{index}"] = (channels, 2**index)
        features = sequence(
            stem=options.make_stem(row.stem, act=True),
            **stages,
            norm=options.make_final_kernel_norm(channels),
        )
        inputs = channels * pool_size**2
        super().__init__(
            features,
            options.levels(row.stem, **levels),
            options.num_classes,
            pool_size=pool_size,
            hidden=HiddenLayers(options, inputs, options.dense, options.dense_drop),
        )


class VGGLike(VGG):
    """VGG-like, (N, in_chans, H, W) -> (N, num_classes).

    Options: those of `VGGLikeOptions`; norm "batch" by default.
    """

    Options: ClassVar = VGGLikeOptions


def make_stage(options: VGGOptions, in_channels: int, widths: tuple[int, ...]) -> nn.Sequential:
    """Units with their activations, dropout between them, half the resolution."""
    layers: dict[str, nn.Module | None] = {}
    for i, width in enumerate(widths, start=1):
        layers[f"unit{i}"] = options.make_unit(in_channels, width, 3, padding=1)
        layers[f"act{i}"] = options.make_act()
        layers[f"drop{i}"] = (
            nn.Dropout2d(options.drop) if options.drop and i < len(widths) else None
        )
        in_channels = width
    return sequence(**layers, pool=nn.MaxPool2d(2))


@register_model
def vgg11(**options: Any) -> VGG:
    """VGG-11."""
    return VGG(ROWS[11], VGGOptions(**options))


@register_model
def vgg13(**options: Any) -> VGG:
    """VGG-13."""
    return VGG(ROWS[13], VGGOptions(**options))


@register_model
def vgg16(**options: Any) -> VGG:
    """VGG-16."""
    return VGG(ROWS[16], VGGOptions(**options))


@register_model
def vgg19(**options: Any) -> VGG:
    """VGG-19."""
    return VGG(ROWS[19], VGGOptions(**options))


@register_model
def vgglike(**given: Any) -> VGGLike:
    """VGG-like of nine weight layers."""
    options = VGGLikeOptions(**given)
    return VGGLike(options.row, options, pool_size=max(1, IMAGE_SIDE >> options.blocks))
