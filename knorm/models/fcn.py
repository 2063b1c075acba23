"""Fully convolutional nets over any backbone: a 3x3 unit and a classifier on the last map.

Source: Long et al., Fully Convolutional Networks for Semantic Segmentation, CVPR 2015, in
torchvision's form; with 512 channels in the head they are the baselines of Nasirigerdeh et al.,
Kernel Normalized Convolutional Networks, TMLR 2024, Table 3 (its "local_context" has windows of
227x227 and 2 channels, the defaults here).
"""

from typing import Any, ClassVar

from knorm.models.backbones import before_last, last, make_backbone
from knorm.models.registry import register_model
from knorm.models.segmenter import Segmenter, SegmenterOptions, aux_head, fcn_head, init_head


class FCN(Segmenter):
    """FCN over a backbone, (N, in_chans, H, W) -> (N, num_classes, H, W).

    Options: those of `SegmenterOptions`. The backbone is one of `knorm.list_models()` or
    `timm:<name>`.
    """

    Options: ClassVar = SegmenterOptions

    def __init__(self, backbone: str, **given: Any):
        options = SegmenterOptions(**given)
        picks = (before_last, last) if options.aux else (last,)
        features, levels, head_options = make_backbone(backbone, options, picks)
        channels, classes = options.head_channels, options.num_classes
        super().__init__(
            features,
            fcn_head(head_options, levels[-1].num_chs, channels, classes),
            aux_head(head_options, levels[-2].num_chs, classes) if options.aux else None,
            classes,
        )
        init_head(self.classifier)
        init_head(self.aux_classifier)


@register_model(task="segmentation")
def fcn(*, backbone: str = "resnet50", **options: Any) -> FCN:
    """FCN over the backbone of that name."""
    return FCN(backbone, **options)


@register_model(task="segmentation")
def fcn_resnet18(**options: Any) -> FCN:
    """FCN-ResNet-18."""
    return FCN("resnet18", **options)


@register_model(task="segmentation")
def fcn_resnet34(**options: Any) -> FCN:
    """FCN-ResNet-34."""
    return FCN("resnet34", **options)


@register_model(task="segmentation")
def fcn_resnet50(**options: Any) -> FCN:
    """FCN-ResNet-50."""
    return FCN("resnet50", **options)


@register_model(task="segmentation")
def fcn_resnet101(**options: Any) -> FCN:
    """FCN-ResNet-101."""
    return FCN("resnet101", **options)


@register_model(task="segmentation")
def fcn_resnet152(**options: Any) -> FCN:
    """FCN-ResNet-152."""
    return FCN("resnet152", **options)
