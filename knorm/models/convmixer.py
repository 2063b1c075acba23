"""ConvMixer: patches, depthwise and 1x1 convolutions at one resolution, any norm.

Source: Trockman and Kolter, Patches Are All You Need?, TMLR 2023, in the form of the code of
hongyaohongyao/train_cifar. Norms follow activations; all convolutions have biases; weights start as
torch's. With norm="kernel" a `KNConv2d` takes the place of each convolution and its norm.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from knorm.models.common import Classifier, Level, NetOptions, Stem, check_count, sequence
from knorm.models.registry import register_model


@dataclass(frozen=True, kw_only=True)
class ConvMixerOptions(NetOptions):
    """`NetOptions`, and the size; "stem" says how large the patches are unless patch_size does."""

    stem: str = "cifar"
    activation: str = "gelu"
    dim: int = 256
    """channels"""
    depth: int = 16
    """blocks"""
    kernel_size: int = 7
    """of the depthwise convolutions; odd, so that maps keep their size"""
    patch_size: int | None = None
    """side of the patches in pixels; None: as the stem's, 2 for "cifar" and 7 for "imagenet" """

    bias: ClassVar[bool | None] = True
    stems: ClassVar[Mapping[str, Stem]] = {
        "cifar": Stem(2, 2, pool=False, bare=False),
        "imagenet": Stem(7, 7, pool=False, bare=False),
    }

    def __post_init__(self):
        super().__post_init__()
        for name in ("dim", "depth", "kernel_size"):
            check_count(name, getattr(self, name))
        if self.patch_size is not None:
            check_count("patch_size", self.patch_size)
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size takes an odd number, got {self.kernel_size}")

    @property
    def patch(self) -> int:
        """Side of the patches in pixels."""
        return self.patch_size or self.stems[self.stem].stride

    def make_layer(self, *args: int, **options) -> nn.Sequential:
        """A convolution, the activation and, but for "kernel", the norm."""
        return sequence(
            conv=self.make_conv(*args, **options),
            act=self.make_act(),
            norm=self.make_preact_norm(self.dim),
        )


class Mixer(nn.Module):
    """A depthwise layer with a skip, then a 1x1 layer: (N, C, H, W) -> the same."""

    def __init__(self, options: ConvMixerOptions):
        super().__init__()
        dim, kernel_size = options.dim, options.kernel_size
        self.depthwise = options.make_layer(
            dim, dim, kernel_size, padding=kernel_size // 2, groups=dim
        )
        self.pointwise = options.make_layer(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(x + self.depthwise(x))


class ConvMixer(Classifier):
    """ConvMixer, (N, in_chans, H, W) -> (N, num_classes).

    Options: those of `ConvMixerOptions`; norm "batch" by default.
    """

    Options: ClassVar = ConvMixerOptions

    def __init__(self, **given: Any):
        options = ConvMixerOptions(**given)
        dim, patch = options.dim, options.patch
        features = sequence(
            stem=options.make_layer(options.in_chans, dim, patch, patch),
            **{f"mixer{i}": Mixer(options) for i in range(1, options.depth + 1)},
            norm=options.make_final_kernel_norm(dim),
        )
        middle = f"mixer{options.depth // 2}" if options.depth > 1 else "stem"
        names = dict.fromkeys(("stem", middle, f"mixer{options.depth}"))
        levels = [Level(f"features.{name}", dim, patch) for name in names]
        super().__init__(features, levels, options.num_classes)


@register_model
def convmixer(**options: Any) -> ConvMixer:
    """ConvMixer."""
    return ConvMixer(**options)
