"""A small net for trying tricks on it, one at a time or together, any norm.

Source: S. Pal, More tricks to improve CIFAR-10 results (2021) and its notebook: three 3x3
convolutions, each followed by pooling, and one hidden layer; wider and deeper dense layers, norms
before or after activations, residual blocks. All convolutions have biases; weights start as
torch's. Maps are flattened as 4 x 4, which images of 32 x 32 give after three blocks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from knorm.choices import NormKind
from knorm.models.common import (
    STEMS,
    Classifier,
    HiddenLayers,
    Level,
    NetOptions,
    Stem,
    check_counts,
    check_flag,
    check_probability,
    sequence,
)
from knorm.models.registry import register_model

POOL_SIZE = 4


@dataclass(frozen=True, kw_only=True)
class TricksOptions(NetOptions):
    """`NetOptions`, and the tricks; the first layers are the same for any stem."""

    norm: NormKind = "none"
    stem: str = "cifar"
    conv_channels: Sequence[int] = (32, 64, 64)
    """output channels of the blocks; each halves the resolution"""
    dense: Sequence[int] = (64,)
    """sizes of the hidden layers between the flattened map and the classifier"""
    norm_after_act: bool = False
    """norms follow activations instead of convolutions"""
    residual: bool = False
    """blocks of two convolutions with a 1x1 convolution beside them"""
    drop: float = 0.0
    """dropout of whole channels in each block"""
    dense_drop: float = 0.0
    """dropout in the hidden layers"""

    bias: ClassVar[bool | None] = True
    stems: ClassVar[Mapping[str, Stem]] = dict.fromkeys(("cifar", "imagenet"), STEMS["cifar"])

    def __post_init__(self):
        super().__post_init__()
        check_counts("conv_channels", self.conv_channels)
        check_counts("dense", self.dense, least=0)
        check_flag("norm_after_act", self.norm_after_act)
        check_flag("residual", self.residual)
        check_probability("drop", self.drop)
        check_probability("dense_drop", self.dense_drop)
        if self.norm_after_act and self.norm in ("none", "kernel"):
            raise ValueError(f"norm_after_act moves norms; norm {self.norm!r} has none to move")

    def make_unit(self, *args: int, **options) -> nn.Module:
        """`NetOptions.make_unit`, without its norm where that follows the activation."""
        make = self.make_conv if self.norm_after_act else super().make_unit
        return make(*args, **options)

    def make_act_of(self, channels: int) -> nn.Module:
        """The activation, with the norm that follows it, if any."""
        if not self.norm_after_act:
            return self.make_act()
        return sequence(act=self.make_act(), norm=self.make_final_norm(channels))


class TwoUnits(nn.Module):
    """Two 3x3 units plus a 1x1 convolution: (N, in_channels, H, W) -> (N, out_channels, H, W)."""

    def __init__(self, options: TricksOptions, in_channels: int, out_channels: int):
        super().__init__()
        self.body = sequence(
            unit1=options.make_unit(in_channels, out_channels, 3, padding=1),
            act=options.make_act_of(out_channels),
            unit2=options.make_unit(out_channels, out_channels, 3, padding=1),
        )
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(x)


def make_block(options: TricksOptions, in_channels: int, out_channels: int) -> nn.Sequential:
    """A unit or two, activation, dropout, half the resolution."""
    if options.residual:
        unit = TwoUnits(options, in_channels, out_channels)
    else:
        unit = options.make_unit(in_channels, out_channels, 3, padding=1)
    return sequence(
        unit=unit,
        act=options.make_act_of(out_channels),
        drop=nn.Dropout2d(options.drop) if options.drop else None,
        pool=nn.MaxPool2d(2),
    )


class TricksNet(Classifier):
    """The net, (N, in_chans, H, W) -> (N, num_classes).

    Options: those of `TricksOptions`; norm "none" by default.
    """

    Options: ClassVar = TricksOptions

    def __init__(self, **given: Any):
        options = TricksOptions(**given)
        channels, blocks, levels = options.in_chans, {}, []
        for i, out_channels in enumerate(options.conv_channels, start=1):
            blocks[f"block{i}"] = make_block(options, channels, out_channels)
            levels.append(Level(f"features.block{i}", out_channels, 2**i))
            channels = out_channels
        features = sequence(**blocks, norm=options.make_final_kernel_norm(channels))
        inputs = channels * POOL_SIZE**2
        hidden = HiddenLayers(options, inputs, options.dense, options.dense_drop)
        super().__init__(features, levels, options.num_classes, pool_size=POOL_SIZE, hidden=hidden)


@register_model
def tricks_net(**options: Any) -> TricksNet:
    """The small net of the tricks."""
    return TricksNet(**options)
