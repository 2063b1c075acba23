"""What nets that label pixels share: their options, feature maps, heads and the way back to pixels.

Shapes: N samples, C channels, K classes, H W pixels.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from knorm.choices import NormKind, Stats
from knorm.models.common import Level, NetOptions, check_count, init_convs, sequence

HEAD_DROPOUT = 0.1  # before the last convolution, as in torchvision's FCN


@dataclass(frozen=True, kw_only=True)
class SegmenterOptions:
    """The options of segmentation nets over a backbone; None: as the backbone has it."""

    num_classes: int = 19
    """the default is Cityscapes'"""
    in_chans: int = 3
    """channels of the input"""
    norm: NormKind | None = None
    """kind of all norms; None: in the heads "batch" over a net of timm's"""
    stem: str | None = None
    """first layers of the backbone: "imagenet", "cifar", ..."""
    activation: str | None = None
    """activation function; None: in the heads "relu" """
    dropout_p: float | None = None
    """dropout of the statistics of kernel-normalized convolutions; no other kind drops"""
    final_dropout_p: float | None = None
    """the same for `KernelNorm`s before the last convolution of a head"""
    eval_stats: Stats | None = None
    """statistics of all kernel layers in evaluation, see `KNConv2d`"""
    norm_options: Mapping[str, Any] | None = None
    """further options of the norms: groups of "group", eps, ..."""
    output_stride: int | None = None
    """most input pixels per pixel of the last feature map: 8, 16 or 32, by dilation; None: 32, or
    what a backbone has that takes no such option"""
    aux: bool = False
    """a second head on the level before the last; its logits come with the others in training"""
    head_channels: int = 512
    """channels inside the head"""
    backbone_options: Mapping[str, Any] | None = None
    """further options of the backbone: width, or of timm's pretrained, checkpoint_path, ..."""

    def __post_init__(self):
        check_count("num_classes", self.num_classes)
        check_count("in_chans", self.in_chans)
        check_count("head_channels", self.head_channels)
        check_flag("aux", self.aux)
        if self.backbone_options is not None and not isinstance(self.backbone_options, Mapping):
            raise ValueError(
                f"backbone_options takes names and values, got {self.backbone_options!r}"
            )


def check_flag(name: str, value: object) -> None:
    """`value` is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} takes True or False, got {value!r}")


class FeatureMaps(nn.Sequential):
    """The layers of a classification net, by the same names; gives the maps of some of its levels.

    (N, C, H, W) -> [(N, C', H', W'), ...], coarser and coarser.
    """

    def __init__(self, layers: nn.Sequential, levels: Sequence[Level]):
        super().__init__(OrderedDict(layers.named_children()))
        self.names = [level.module.removeprefix("features.") for level in levels]

    def forward(self, input: Tensor) -> list[Tensor]:  # noqa: A002  torch's name for it
        x, maps = input, []
        for name, layer in self.named_children():
            x = layer(x)
            if name in self.names:
                maps.append(x)
        return maps


class Segmenter(nn.Module):
    """A net that labels pixels: (N, in_chans, H, W) -> logits (N, num_classes, H, W).

    With an auxiliary head it gives, in training, a dictionary of such logits, "out" and "aux", as
    torchvision's nets do. Logits of the heads are made as large as the input by bilinear
    interpolation (corners not aligned), so images may be of any size.

    Args:
        features: gives a list of feature maps, coarser and coarser.
        classifier: (N, C, H', W') of the last of them, or what `decode` gives it, -> logits.
        aux_classifier: the same for the map before the last.
        num_classes: K.
    """

    Options: ClassVar[type] = SegmenterOptions

    def __init__(
        self,
        features: nn.Module,
        classifier: nn.Module,
        aux_classifier: nn.Module | None,
        num_classes: int,
    ):
        super().__init__()
        self.num_classes = num_classes
        self.features = features
        self.classifier = classifier
        self.aux_classifier = aux_classifier

    def decode(self, maps: list[Tensor]) -> Tensor:
        """Feature maps -> logits of any size."""
        return self.classifier(maps[-1])

    def forward(self, x: Tensor) -> Tensor | dict[str, Tensor]:
        maps = self.features(x)
        out = resize(self.decode(maps), x)
        if self.aux_classifier is None or not self.training:
            return out
        return {"out": out, "aux": resize(self.aux_classifier(maps[-2]), x)}

    def load_features(self, state_dict: Mapping[str, Tensor]) -> None:
        """Take the features' tensors from a state dict of the classification net of that backbone.

        For backbones of our own, whose state dicts have keys `features.*`; others are left out.

        Raises:
            ValueError: a tensor is missing, unknown or of another shape.
        """
        ours = {f"features.{name}": tensor for name, tensor in self.features.state_dict().items()}
        given = {key: tensor for key, tensor in state_dict.items() if key.startswith("features.")}
        for key in sorted(ours.keys() | given.keys()):
            if key not in given:
                raise ValueError(f"the state dict lacks {key}")
            if key not in ours:
                raise ValueError(f"the state dict has {key}, which the net has not")
            if given[key].shape != ours[key].shape:
                shapes = tuple(given[key].shape), tuple(ours[key].shape)
                raise ValueError(f"{key} is {shapes[0]} in the state dict, {shapes[1]} in the net")
        tensors = {key.removeprefix("features."): tensor for key, tensor in given.items()}
        self.features.load_state_dict(tensors)


def resize(maps: Tensor, like: Tensor) -> Tensor:
    """Bilinear, to the height and width of `like`."""
    return F.interpolate(maps, like.shape[2:], mode="bilinear", align_corners=False)


def fcn_head(
    options: NetOptions, in_channels: int, channels: int, num_classes: int
) -> nn.Sequential:
    """A 3x3 unit, activation, dropout and the classifier: (N, in_channels, H, W) -> logits.

    Source: torchvision's FCN; a `KernelNorm2d` after the unit if that is a `KNConv2d`, as in
    FCN-KNResNet-50.
    """
    return sequence(
        unit=options.make_unit(in_channels, channels, 3, padding=1),
        norm=options.make_final_kernel_norm(channels),
        act=options.make_act(),
        dropout=nn.Dropout(HEAD_DROPOUT),
        conv=nn.Conv2d(channels, num_classes, 1),
    )


def aux_head(options: NetOptions, in_channels: int, num_classes: int) -> nn.Sequential:
    """`fcn_head` with a quarter of the channels, as torchvision's."""
    return fcn_head(options, in_channels, max(1, in_channels // 4), num_classes)


def init_head(head: nn.Module | None) -> None:
    """`init_convs`, but the last convolution normal with deviation 0.01, as mmsegmentation's.

    By fan-out, which is the number of classes, the first logits would be far from 0.
    """
    if head is None:
        return
    init_convs(head)
    *_, last = (module for module in head.modules() if isinstance(module, nn.Conv2d))
    nn.init.normal_(last.weight, std=0.01)
