"""Residual nets with norm and activation before each convolution, any norm.

Source: He et al., Identity Mappings in Deep Residual Networks, ECCV 2016, with a norm and an
activation before pooling and no norms on the shortcuts, as the baselines of the KernelNorm paper
(TMLR 2024, Table 1). With norm="kernel" a `KNConv2d` takes the place of a norm and its
convolution, shortcuts included, and a 1x1 `KernelNorm2d` that of the last norm.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from knorm.models.common import Classifier, init_convs, sequence
from knorm.models.registry import register_model
from knorm.models.resnet import (
    ROWS,
    BlockForm,
    Channels,
    Geometry,
    ResNetOptions,
    ResNetRow,
    residual_levels,
    residual_stages,
)


@dataclass(frozen=True, kw_only=True)
class PreActResNetOptions(ResNetOptions):
    """`ResNetOptions`, and what stands before pooling."""

    dropout_p: float = 0.1
    final_norm: bool = True
    """a norm and an activation before pooling"""

    final_dropout_bound: ClassVar[float] = 0.5

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.final_norm, bool):
            raise ValueError(f"final_norm takes True or False, got {self.final_norm!r}")


class PreActBlock(nn.Module):
    """body(a) + shortcut, where a = act(norm(x)) and the shortcut is x or its 1x1 convolution of a.

    (N, inputs, H, W) -> (N, outputs, H', W').
    """

    def __init__(
        self,
        options: ResNetOptions,
        form: BlockForm,
        channels: Channels,
        geometry: Geometry,
    ):
        super().__init__()
        layers: dict[str, nn.Module | None] = {}
        for i, conv in enumerate(form.convs(channels, geometry), start=1):
            if layers:
                layers[f"norm{i}"] = options.make_preact_norm(conv["in_channels"])
                layers[f"act{i}"] = options.make_act()
            layers[f"conv{i}"] = options.make_conv(**conv)
        self.preact = sequence(
            norm=options.make_preact_norm(channels.inputs),
            act=options.make_act(),
        )
        self.body = sequence(**layers)
        self.shortcut: nn.Module | None = None
        if geometry.stride != 1 or channels.inputs != channels.outputs:
            self.shortcut = options.make_conv(channels.inputs, channels.outputs, 1, geometry.stride)

    def forward(self, x: Tensor) -> Tensor:
        activated = self.preact(x)
        shortcut = x if self.shortcut is None else self.shortcut(activated)
        return self.body(activated) + shortcut


class PreActResNet(Classifier):
    """Pre-activation ResNet, (N, in_chans, H, W) -> (N, num_classes).

    Options: those of `PreActResNetOptions`; norm "batch" by default. The published nets for
    private training (SaTML 2023, 18 layers) have, for "group", "layer" and "none",
    stem="7x7_stride2" and final_norm=False, for "kernel" stem="cifar".
    """

    Options: ClassVar = PreActResNetOptions

    def __init__(self, row: ResNetRow, **given: Any):
        options = PreActResNetOptions(**given)
        features = sequence(
            stem=options.make_preact_stem(row.stem_channels),
            stem_pool=options.make_stem_pool(),
            **residual_stages(PreActBlock, row, options),
            norm=options.make_final_norm(row.num_features) if options.final_norm else None,
            act=options.make_act() if options.final_norm else None,
        )
        super().__init__(features, residual_levels(row, options), options.num_classes)
        init_convs(self)


@register_model
def preact_resnet18(**options: Any) -> PreActResNet:
    """PreAct-ResNet-18."""
    return PreActResNet(ROWS[18], **options)


@register_model
def preact_resnet34(**options: Any) -> PreActResNet:
    """PreAct-ResNet-34."""
    return PreActResNet(ROWS[34], **options)


@register_model
def preact_resnet50(**options: Any) -> PreActResNet:
    """PreAct-ResNet-50."""
    return PreActResNet(ROWS[50], **options)


@register_model
def preact_resnet101(**options: Any) -> PreActResNet:
    """PreAct-ResNet-101."""
    return PreActResNet(ROWS[101], **options)


@register_model
def preact_resnet152(**options: Any) -> PreActResNet:
    """PreAct-ResNet-152."""
    return PreActResNet(ROWS[152], **options)
