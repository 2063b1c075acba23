"""Two odd nets of CIFAR comparisons, any norm: mini_net and recres11.

Source: the code of hongyaohongyao/train_cifar. Weights start as torch's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from knorm.models.common import STEMS, Classifier, Level, NetOptions, Stem, sequence
from knorm.models.registry import register_model

MINI_CHANNELS = 32
BRANCH_CHANNELS = 384
BRANCHES = 9


@dataclass(frozen=True, kw_only=True)
class MiniNetOptions(NetOptions):
    """`NetOptions` for small images."""

    stem: str = "cifar"

    bias: ClassVar[bool | None] = False


@dataclass(frozen=True, kw_only=True)
class RecRes11Options(NetOptions):
    """`NetOptions` for small images; the first layers are the same for any stem."""

    stem: str = "cifar"
    activation: str = "leaky_relu"

    bias: ClassVar[bool | None] = True
    stems: ClassVar[Mapping[str, Stem]] = dict.fromkeys(("cifar", "imagenet"), STEMS["cifar"])


class Added(nn.Module):
    """x plus all branches of x: (N, C, H, W) -> the same."""

    def __init__(self, *branches: nn.Module):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return x + sum(branch(x) for branch in self.branches)


class MiniNet(Classifier):
    """Three 3x3 units of 32 channels, (N, in_chans, H, W) -> (N, num_classes).

    Options: those of `MiniNetOptions`; norm "batch" by default.
    """

    Options: ClassVar = MiniNetOptions

    def __init__(self, **given: Any):
        options, channels = MiniNetOptions(**given), MINI_CHANNELS

        def block() -> Added:
            unit = options.make_unit(channels, channels, 3, padding=1)
            return Added(sequence(unit=unit, act=options.make_act()))

        features = sequence(
            stem=options.make_stem(channels, act=True),
            stem_pool=options.make_stem_pool(),
            block1=block(),
            block2=block(),
            norm=options.make_final_kernel_norm(channels),
        )
        levels = options.levels(channels, block1=(channels, 1), block2=(channels, 1))
        super().__init__(features, levels, options.num_classes)


class RecRes11(Classifier):
    """A sum of nine 3x3 branches of 384 channels, (N, in_chans, H, W) -> (N, num_classes).

    The first convolution is padded by 2, so that maps are larger than images by 2. Norms follow
    activations in the branches. Options: those of `RecRes11Options`; norm "batch" by default.
    """

    Options: ClassVar = RecRes11Options

    def __init__(self, **given: Any):
        options, channels = RecRes11Options(**given), BRANCH_CHANNELS

        def branch() -> nn.Sequential:
            return sequence(
                conv=options.make_conv(channels, channels, 3, padding=1),
                act=options.make_act(),
                norm=options.make_preact_norm(channels),
            )

        features = sequence(
            stem=options.make_unit(options.in_chans, channels, 3, padding=2),
            branches=Added(*(branch() for _ in range(BRANCHES))),
            norm=options.make_final_kernel_norm(channels),
        )
        levels = [Level(f"features.{name}", channels, 1) for name in ("stem", "branches")]
        super().__init__(features, levels, options.num_classes)


@register_model
def mini_net(**options: Any) -> MiniNet:
    """Three convolutions."""
    return MiniNet(**options)


@register_model
def recres11(**options: Any) -> RecRes11:
    """Nine parallel convolutions."""
    return RecRes11(**options)
