"""Grouped and wider residual nets of CIFAR comparisons, any norm.

Source: the code of hongyaohongyao/train_cifar. Its ResNeXts are ResNets with twice as many channels
inside the blocks, whose second convolution has 32 groups (Xie et al., Aggregated Residual
Transformations for Deep Neural Networks, CVPR 2017, have other widths).
"""

from dataclasses import replace
from typing import Any

from knorm.models.registry import register_model
from knorm.models.resnet import BASIC, ROWS, ResNet, ResNetRow

GROUPED = {
    depth: replace(row, block=replace(row.block, inner=2, groups=32)) for depth, row in ROWS.items()
}
WIDER14 = ResNetRow(BASIC, (2, 2, 1, 1), stem_channels=128)


@register_model
def resnext10(**options: Any) -> ResNet:
    """ResNeXt-10, 32 groups."""
    return ResNet(GROUPED[10], **options)


@register_model
def resnext18(**options: Any) -> ResNet:
    """ResNeXt-18, 32 groups."""
    return ResNet(GROUPED[18], **options)


@register_model
def resnext34(**options: Any) -> ResNet:
    """ResNeXt-34, 32 groups."""
    return ResNet(GROUPED[34], **options)


@register_model
def resnext50(**options: Any) -> ResNet:
    """ResNeXt-50, 32 groups."""
    return ResNet(GROUPED[50], **options)


@register_model
def resnext101(**options: Any) -> ResNet:
    """ResNeXt-101, 32 groups."""
    return ResNet(GROUPED[101], **options)


@register_model
def resnext152(**options: Any) -> ResNet:
    """ResNeXt-152, 32 groups."""
    return ResNet(GROUPED[152], **options)


@register_model
def widerresnet14(**options: Any) -> ResNet:
    """ResNet-14 of twice the width."""
    return ResNet(WIDER14, **options)
