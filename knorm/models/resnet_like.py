"""ResNet-like and ResNeXt-like: compact residual nets that project every shortcut, any norm.

Source: theabhirath/cifar10-experiments. A 5x5 stem, then chunks of blocks; the last block of a
chunk doubles the channels and halves the resolution. No shortcut is an identity. All convolutions
have biases; weights start as torch's.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor, nn

from knorm.models.common import STEMS, Classifier, NetOptions, Stem, check_count, sequence
from knorm.models.registry import register_model
from knorm.models.resnet import BASIC, BOTTLENECK, BlockForm, Channels, Geometry, ResidualBlock


@dataclass(frozen=True, kw_only=True)
class LikeOptions(NetOptions):
    """`NetOptions` for small images, and the stem's channels."""

    stem: str = "cifar"
    width: int = 32
    """output channels of the stem"""

    bias: ClassVar[bool | None] = True
    stems: ClassVar[Mapping[str, Stem]] = STEMS | {"cifar": Stem(5, 1, pool=False, bare=False)}

    def __post_init__(self):
        super().__post_init__()
        check_count("width", self.width, least=4)


@dataclass(frozen=True, kw_only=True)
class ResNetLikeOptions(LikeOptions):
    """`LikeOptions`, and the chunks."""

    vanilla_chunks: int = 1
    """chunks of blocks of two 3x3 convolutions, which stand first"""
    bottleneck_chunks: int = 2
    """chunks of blocks of a 3x3 convolution between two 1x1 ones, with a quarter of the channels"""
    chunk_blocks: int = 3
    """blocks of a chunk"""

    def __post_init__(self):
        super().__post_init__()
        for name, least in (("vanilla_chunks", 0), ("bottleneck_chunks", 0), ("chunk_blocks", 1)):
            check_count(name, getattr(self, name), least)
        if self.vanilla_chunks + self.bottleneck_chunks == 0:
            raise ValueError("vanilla_chunks and bottleneck_chunks are both 0; give at least one")


@dataclass(frozen=True, kw_only=True)
class ResNeXtLikeOptions(LikeOptions):
    """`LikeOptions`, and the chunks."""

    width: int = 64
    chunks: int = 3
    """chunks of blocks of a grouped 3x3 convolution between two 1x1 ones"""
    chunk_blocks: int = 2
    """blocks of a chunk"""
    cardinality: int = 64
    """groups of the 3x3 convolutions"""
    group_width: int = 4
    """channels of a group"""

    def __post_init__(self):
        super().__post_init__()
        for name in ("chunks", "chunk_blocks", "cardinality", "group_width"):
            check_count(name, getattr(self, name))


@dataclass(frozen=True)
class ChunkForm:
    """The blocks of a chunk."""

    block: BlockForm
    inner: Callable[[int], int]
    """channels inside a block by those that it gives"""
    blocks: int

    def make(self, options: LikeOptions, in_channels: int) -> nn.Sequential:
        """(N, in_channels, H, W) -> (N, 2 * in_channels, H / 2, W / 2), rounded up."""
        blocks = []
        for i in range(self.blocks):
            last = i == self.blocks - 1
            outputs = 2 * in_channels if last else in_channels
            channels = Channels(in_channels, self.inner(outputs), outputs)
            geometry = Geometry(stride=2 if last else 1)
            blocks.append(ResidualBlock(options, self.block, channels, geometry, skip="unit"))
        return nn.Sequential(*blocks)


class OuterShortcut(nn.Module):
    """A chunk plus a 1x1 convolution of what it gets, without norm or activation."""

    def __init__(self, chunk: nn.Module, in_channels: int):
        super().__init__()
        self.chunk = chunk
        self.shortcut = nn.Conv2d(in_channels, 2 * in_channels, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.chunk(x) + self.shortcut(x)


class ChunkNet(Classifier):
    """Stem, chunks and classifier, (N, in_chans, H, W) -> (N, num_classes).

    chunks: each doubles the channels and halves the resolution; the first gets `options.width`.
    """

    def __init__(self, options: LikeOptions, chunks: Sequence[nn.Module]):
        widths = [options.width * 2**i for i in range(len(chunks) + 1)]
        features = sequence(
            stem=options.make_stem(options.width, act=True),
            stem_pool=options.make_stem_pool(),
            **{f"chunk{i}": chunk for i, chunk in enumerate(chunks, start=1)},
            norm=options.make_final_kernel_norm(widths[-1]),
        )
        stages = {f"chunk{i}": (widths[i], 2**i) for i in range(1, len(widths))}
        super().__init__(features, options.levels(options.width, **stages), options.num_classes)


class ResNetLike(ChunkNet):
    """ResNet-like, (N, in_chans, H, W) -> (N, num_classes).

    Options: those of `ResNetLikeOptions`; norm "batch" by default.
    """

    Options: ClassVar = ResNetLikeOptions

    def __init__(self, **given: Any):
        options = ResNetLikeOptions(**given)
        vanilla = ChunkForm(BASIC, lambda outputs: outputs, options.chunk_blocks)
        bottleneck = ChunkForm(BOTTLENECK, lambda outputs: outputs // 4, options.chunk_blocks)
        forms = [vanilla] * options.vanilla_chunks + [bottleneck] * options.bottleneck_chunks
        chunks = [form.make(options, options.width * 2**i) for i, form in enumerate(forms)]
        super().__init__(options, chunks)


class ResNeXtLike(ChunkNet):
    """ResNeXt-like, (N, in_chans, H, W) -> (N, num_classes).

    Options: those of `ResNeXtLikeOptions`; norm "batch" by default.
    """

    Options: ClassVar = ResNeXtLikeOptions

    def __init__(self, **given: Any):
        options = ResNeXtLikeOptions(**given)
        inner = options.cardinality * options.group_width
        block = replace(BOTTLENECK, groups=options.cardinality)
        form = ChunkForm(block, lambda _: inner, options.chunk_blocks)
        widths = [options.width * 2**i for i in range(options.chunks)]
        chunks = [OuterShortcut(form.make(options, width), width) for width in widths]
        super().__init__(options, chunks)


@register_model
def resnetlike(**options: Any) -> ResNetLike:
    """ResNet-like."""
    return ResNetLike(**options)


@register_model
def resnextlike(**options: Any) -> ResNeXtLike:
    """ResNeXt-like."""
    return ResNeXtLike(**options)
