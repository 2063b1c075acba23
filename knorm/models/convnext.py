"""ConvNeXt and KNConvNeXt: patches, depthwise convolutions and few norms, any norm.

Source: Liu et al., A ConvNet for the 2020s, CVPR 2022, laid out as torchvision's, with 1x1
convolutions for its linear layers. KNConvNeXt: Nasirigerdeh et al., Kernel Normalized
Convolutional Networks, TMLR 2024, appendix, and its code: LayerNorm and convolution of the three
down-sampling layers become ReLU and `KNConv2d`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from knorm.choices import NormKind, check_name
from knorm.models.common import Classifier, NetOptions, Stem, check_probability, sequence
from knorm.models.registry import register_model

NormScope = Literal["downsampling", "all"]

LAYER_NORM_OPTIONS = ("eps", "affine")


@dataclass(frozen=True)
class ConvNeXtRow:
    """One size: blocks and channels of its four stages."""

    depths: tuple[int, int, int, int]
    channels: tuple[int, int, int, int]


ROWS = {
    "tiny": ConvNeXtRow((3, 3, 9, 3), (96, 192, 384, 768)),
    "small": ConvNeXtRow((3, 3, 27, 3), (96, 192, 384, 768)),
    "base": ConvNeXtRow((3, 3, 27, 3), (128, 256, 512, 1024)),
    "large": ConvNeXtRow((3, 3, 27, 3), (192, 384, 768, 1536)),
}


class LayerNorm2d(nn.Module):
    """LayerNorm over the channels of each position: (N, C, H, W) -> the same."""

    def __init__(self, num_channels: int, eps: float = 1e-6, affine: bool = True):
        super().__init__()
        self.num_channels = num_channels
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(num_channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_channels)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        channels_last = x.permute(0, 2, 3, 1)
        shape = (self.num_channels,)
        out = F.layer_norm(channels_last, shape, self.weight, self.bias, self.eps)
        return out.permute(0, 3, 1, 2)

    def extra_repr(self) -> str:
        return f"{self.num_channels}, eps={self.eps}, affine={self.weight is not None}"


@dataclass(frozen=True, kw_only=True)
class ConvNeXtOptions(NetOptions):
    """`NetOptions`, and which norms are of the kind asked for.

    "layer" is that of the published nets, over the channels of each position.
    """

    norm: NormKind = "layer"
    norm_scope: NormScope | None = None
    """norms of kind `norm`: the three before "downsampling", the others being "layer", or "all";
    None: as published for "kernel", i.e. "downsampling", and "all" for the other kinds"""
    activation: str = "gelu"
    dropout_p: float = 0.1
    stochastic_depth: float = 0.1
    """probability that the last block is left out for a sample; it rises from 0 at the first"""
    layer_scale: float = 1e-6
    """what the factors of the residual branches start with"""

    bias: ClassVar[bool | None] = True
    stems: ClassVar[Mapping[str, Stem]] = {
        "cifar": Stem(3, 1, pool=False, bare=False),
        "imagenet": Stem(4, 4, pool=False, bare=False),
    }

    def __post_init__(self):
        super().__post_init__()
        if self.norm_scope is not None:
            check_name("norm_scope", self.norm_scope, get_args(NormScope))
        check_probability("stochastic_depth", self.stochastic_depth)
        if not isinstance(self.layer_scale, (int, float)) or self.layer_scale <= 0:
            raise ValueError(f"layer_scale takes a positive number, got {self.layer_scale!r}")

    def _check_norm_options(self):
        super()._check_norm_options()
        for option in (self.norm == "layer" and self.norm_options) or ():
            check_name("option of norm 'layer':", option, LAYER_NORM_OPTIONS)

    @property
    def others(self) -> "ConvNeXtOptions":
        """The options of all but the down-sampling layers."""
        scope = self.norm_scope or ("downsampling" if self.norm == "kernel" else "all")
        return self if scope == "all" else replace(self, norm="layer", norm_options=None)

    def make_final_norm(self, channels: int) -> nn.Module:
        """`NetOptions.make_final_norm`, but for "layer"."""
        if self.norm != "layer":
            return super().make_final_norm(channels)
        return LayerNorm2d(channels, **self.norm_options or {})

    def make_bare_stem(self, channels: int) -> nn.Sequential:
        """The stem: a convolution and a norm, no activation."""
        return sequence(
            conv=self.make_conv(*self._stem_shape(channels)),
            norm=self.make_preact_norm(channels),
        )


class StochasticDepth(nn.Module):
    """In training, 0 for a random part p of the samples, and 1 / (1 - p) times the others.

    Source: Huang et al., Deep Networks with Stochastic Depth, ECCV 2016.
    """

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        kept = torch.full_like(x[:, :1, :1, :1], 1 - self.p).bernoulli()
        return x * (kept / (1 - self.p))

    def extra_repr(self) -> str:
        return f"p={self.p}"


class ConvNeXtBlock(nn.Module):
    """x plus scale times body(x), all in C channels: (N, C, H, W) -> the same."""

    def __init__(self, options: ConvNeXtOptions, channels: int, depth_p: float):
        super().__init__()
        self.body = sequence(
            depthwise=nn.Conv2d(channels, channels, 7, padding=3, groups=channels),
            norm=options.make_preact_norm(channels),
            expand=options.make_conv(channels, 4 * channels, 1),
            act=options.make_act(),
            project=nn.Conv2d(4 * channels, channels, 1),
        )
        self.scale = nn.Parameter(torch.full((channels, 1, 1), float(options.layer_scale)))
        self.depth = StochasticDepth(depth_p)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.depth(self.scale * self.body(x))


def make_downsampling(
    options: ConvNeXtOptions, in_channels: int, out_channels: int
) -> nn.Sequential:
    """Half the resolution: a norm, or ReLU before a `KNConv2d`, and a convolution of patches."""
    return sequence(
        norm=options.make_preact_norm(in_channels),
        act=nn.ReLU() if options.norm == "kernel" else None,
        conv=options.make_conv(in_channels, out_channels, 2, 2),
    )


def make_stages(row: ConvNeXtRow, options: ConvNeXtOptions) -> dict[str, nn.Module]:
    """`stage1`, `downsampling1`, `stage2`, ... `stage4`."""
    layers: dict[str, nn.Module] = {}
    last, count = sum(row.depths) - 1, 0
    for i, (depth, channels) in enumerate(zip(row.depths, row.channels, strict=True)):
        if i > 0:
            before = row.channels[i - 1]
            layers[f"downsampling{i}"] = make_downsampling(options, before, channels)
        rates = [options.stochastic_depth * (count + j) / last for j in range(depth)]
        blocks = [ConvNeXtBlock(options.others, channels, rate) for rate in rates]
        count += depth
        layers[f"stage{i + 1}"] = nn.Sequential(*blocks)
    return layers


class ConvNeXt(Classifier):
    """ConvNeXt, (N, in_chans, H, W) -> (N, num_classes).

    Options: those of `ConvNeXtOptions`; norm "layer" by default. Stems: "imagenet", patches of 4x4,
    or "cifar", a 3x3 convolution that keeps the resolution. The norm before the classifier stands
    behind the pooling if it is "layer", as published, otherwise before it.
    """

    Options: ClassVar = ConvNeXtOptions

    def __init__(self, row: ConvNeXtRow, **given: Any):
        options = ConvNeXtOptions(**given)
        others, num_features = options.others, row.channels[-1]
        published = others.norm == "layer"
        features = sequence(
            stem=others.make_bare_stem(row.channels[0]),
            **make_stages(row, options),
            norm=None if published else others.make_final_norm(num_features),
        )
        stages = {f"stage{i + 1}": (channels, 2**i) for i, channels in enumerate(row.channels)}
        levels = options.levels(row.channels[0], **stages)
        head_norm = others.make_final_norm(num_features) if published else None
        super().__init__(features, levels, options.num_classes, head_norm=head_norm)
        init_weights(self)


def init_weights(net: nn.Module) -> None:
    """Convolutions and the classifier: weights normal with deviation 0.02, biases 0."""
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


@register_model
def convnext_tiny(**options: Any) -> ConvNeXt:
    """ConvNeXt-Tiny."""
    return ConvNeXt(ROWS["tiny"], **options)


@register_model
def convnext_small(**options: Any) -> ConvNeXt:
    """ConvNeXt-Small."""
    return ConvNeXt(ROWS["small"], **options)


@register_model
def convnext_base(**options: Any) -> ConvNeXt:
    """ConvNeXt-Base."""
    return ConvNeXt(ROWS["base"], **options)


@register_model
def convnext_large(**options: Any) -> ConvNeXt:
    """ConvNeXt-Large."""
    return ConvNeXt(ROWS["large"], **options)
