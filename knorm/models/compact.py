"""Small nets for private training: KNResNet-13 and ResNet-8, any norm, any width.

Source: Nasirigerdeh et al., Kernel Normalized Convolutional Networks for Privacy-Preserving
Machine Learning, SaTML 2023, and its code. All convolutions are 3x3; weights start as torch's.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from torch import Tensor, nn

from knorm.choices import NormKind
from knorm.models.common import Classifier, NetOptions, scaled, sequence
from knorm.models.registry import register_model


@dataclass(frozen=True, kw_only=True)
class CompactOptions(NetOptions):
    """`NetOptions` for small images, and the width."""

    stem: str = "cifar"
    dropout_p: float = 0.1
    width: float = 1.0
    """all channel counts times this; they must come out whole"""

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.width, (int, float)) or self.width <= 0:
            raise ValueError(f"width takes a positive number, got {self.width!r}")


@dataclass(frozen=True, kw_only=True)
class KNResNet13Options(CompactOptions):
    """Kernel-normalized by default; without a norm the convolutions have biases."""

    norm: NormKind = "kernel"

    final_dropout_bound: ClassVar[float] = 0.5


@dataclass(frozen=True, kw_only=True)
class ResNet8Options(CompactOptions):
    """Without a norm the convolutions have no biases, as published."""

    bias: ClassVar[bool | None] = False


class Residual(nn.Module):
    """x plus two 3x3 units of x, activations before them or after: (N, C, H, W) -> the same."""

    def __init__(self, options: NetOptions, channels: int, *, preact: bool):
        super().__init__()
        layers: dict[str, nn.Module] = {}
        for i in (1, 2):
            act = (f"act{i}", options.make_act())
            unit = (f"unit{i}", options.make_unit(channels, channels, 3, padding=1))
            layers.update([act, unit] if preact else [unit, act])
        self.body = sequence(**layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def make_transition(
    options: NetOptions, in_channels: int, out_channels: int, *, preact: bool
) -> nn.Sequential:
    """A 3x3 unit, its activation before or after it, and half the resolution."""
    act, pool = options.make_act(), nn.MaxPool2d(2)
    unit = options.make_unit(in_channels, out_channels, 3, padding=1)
    if preact:
        return sequence(act=act, unit=unit, pool=pool)
    return sequence(unit=unit, act=act, pool=pool)


class KNResNet13(Classifier):
    """KNResNet-13, (N, in_chans, H, W) -> (N, num_classes): activations before convolutions.

    Options: those of `KNResNet13Options`.
    """

    Options: ClassVar = KNResNet13Options

    def __init__(self, **given: Any):
        options = KNResNet13Options(**given)
        residual = partial(Residual, options, preact=True)
        transition = partial(make_transition, options, preact=True)
        c64, c128, c256 = (scaled(channels, options.width) for channels in (64, 128, 256))
        features = sequence(
            stem=options.make_stem(c64, act=False),
            stem_pool=options.make_stem_pool(),
            block1=residual(c64),
            transition1=transition(c64, c64),
            block2=residual(c64),
            transition2=transition(c64, c128),
            block3=residual(c128),
            transition3=transition(c128, c256),
            block4=residual(c256),
            norm=options.make_final_norm(c256),
            act=options.make_act(),
        )
        levels = options.levels(
            c64, block1=(c64, 1), block2=(c64, 2), block3=(c128, 4), block4=(c256, 8)
        )
        super().__init__(features, levels, options.num_classes, pool_size=2)


class ResNet8(Classifier):
    """ResNet-8, (N, in_chans, H, W) -> (N, num_classes): activations after convolutions.

    Options: those of `ResNet8Options`; norm "batch" by default.
    """

    Options: ClassVar = ResNet8Options

    def __init__(self, **given: Any):
        options = ResNet8Options(**given)
        residual = partial(Residual, options, preact=False)
        transition = partial(make_transition, options, preact=False)
        c64, c128, c256 = (scaled(channels, options.width) for channels in (64, 128, 256))
        features = sequence(
            stem=options.make_stem(c64, act=True),
            stem_pool=options.make_stem_pool(),
            transition1=transition(c64, c128),
            block1=residual(c128),
            transition2=transition(c128, c256),
            block2=residual(c256),
            pool=nn.MaxPool2d(2),
            norm=options.make_final_kernel_norm(c256),
        )
        levels = options.levels(c64, block1=(c128, 2), block2=(c256, 4), pool=(c256, 8))
        super().__init__(features, levels, options.num_classes, pool_size=2)


@register_model
def knresnet13(**options: Any) -> KNResNet13:
    """KNResNet-13."""
    return KNResNet13(**options)


@register_model
def resnet8(**options: Any) -> ResNet8:
    """ResNet-8."""
    return ResNet8(**options)
