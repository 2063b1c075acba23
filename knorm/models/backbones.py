"""Backbones of segmentation nets by name: our classification nets, and timm's as `timm:<name>`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

import torch
from torch import nn

from knorm.choices import check_name, nearest
from knorm.models import in_timm
from knorm.models.common import Classifier, Level, NetOptions
from knorm.models.registry import create_model, list_models, model_options, options_class
from knorm.models.segmenter import FeatureMaps, SegmenterOptions

USUAL_STRIDE = 32
LOW_STRIDE = 4  # of the finer map that DeepLabV3+ takes
OF_HEADS = ("norm", "dropout_p", "final_dropout_p", "eval_stats", "norm_options")
NOT_SHARED = ("num_classes", "aux", "head_channels", "backbone_options")
NORM_OPTIONS_OF_HEADS = ("groups", "affine", "eps", "bounded")  # others are of `swap_norm` alone


class Backbone(NamedTuple):
    """A net that gives feature maps, and what their user has to know."""

    features: nn.Module
    """(N, in_chans, H, W) -> [(N, num_chs, H', W') of each level]"""
    levels: tuple[Level, ...]
    """of these maps"""
    head_options: NetOptions
    """what the heads are made of"""


Pick = Callable[[str, Sequence[Level]], int]
"""which of a backbone's levels: its index"""


def last(name: str, levels: Sequence[Level]) -> int:
    """The last level."""
    return len(levels) - 1


def before_last(name: str, levels: Sequence[Level]) -> int:
    """The level before the last."""
    if len(levels) < 2:
        raise ValueError(f"backbone {name} has one feature map; an auxiliary head needs two")
    return len(levels) - 2


def low(name: str, levels: Sequence[Level]) -> int:
    """The coarsest level of stride 4 or finer, the last one excepted."""
    fine = [i for i, level in enumerate(levels[:-1]) if level.reduction <= LOW_STRIDE]
    if not fine:
        strides = ", ".join(str(level.reduction) for level in levels)
        raise ValueError(
            f"backbone {name} has feature maps of strides {strides}; the decoder needs a coarse "
            f"one and one of {LOW_STRIDE} or finer"
        )
    return fine[-1]


def make_backbone(name: str, options: SegmenterOptions, picks: Sequence[Pick]) -> Backbone:
    """The backbone of that name with these options; it gives the levels that `picks` choose, in
    its own order, the same one once.

    Raises:
        ValueError: an unknown name, option or value; levels that it does not have.
    """
    is_timms = name.startswith(in_timm.PREFIX)
    if not is_timms:
        check_name("backbone", name, list_models())
    given = backbone_options(name, options)
    return (_from_timm if is_timms else _from_ours)(name, given, options, picks)


def backbone_options(name: str, options: SegmenterOptions) -> dict[str, Any]:
    """What the backbone is built with; all of it is known to take it."""
    taken = model_options(name)
    shared = [field.name for field in fields(options) if field.name not in NOT_SHARED]
    given = _given(options, shared)
    for option in given:
        if option not in taken:
            hint = "; None leaves its strides as they are" if option == "output_stride" else ""
            raise ValueError(f"backbone {name} takes no {option}{hint}")
    for option in options.backbone_options or {}:
        if option not in taken:
            raise ValueError(
                f"backbone_options: {name} takes no option {option!r}{nearest(option, taken)} "
                f"(it takes {', '.join(taken)})"
            )
        if option in shared or option == "num_classes":
            raise ValueError(f"backbone_options: {option} is an option of the whole net")
    return given | dict(options.backbone_options or {})


def _from_ours(
    name: str, given: Mapping[str, Any], options: SegmenterOptions, picks: Sequence[Pick]
) -> Backbone:
    if "output_stride" in model_options(name):  # KNResNets without one have maps of stride 64
        given = {"output_stride": USUAL_STRIDE, **given}
    net = create_model(name, **given, num_classes=0)
    kind = options_class(name)
    if not isinstance(net, Classifier) or kind is None:
        raise ValueError(f"backbone {name} tells nothing of feature maps: it is no Classifier")
    levels = [Level(**level) for level in net.feature_info]
    chosen = tuple(levels[i] for i in _in_order(name, levels, picks))
    features = FeatureMaps(net.features, chosen)
    return Backbone(features, chosen, _head_options(options, kind(**given)))


def _from_timm(
    name: str, given: Mapping[str, Any], options: SegmenterOptions, picks: Sequence[Pick]
) -> Backbone:
    plain = {k: v for k, v in given.items() if k not in in_timm.SWAPPING}
    try:
        with torch.device("meta"):
            info: Any = in_timm.build_features(name, plain).feature_info
    except ValueError as error:
        stride = f"; output_stride is {options.output_stride}" if options.output_stride else ""
        raise ValueError(f"{error}{stride}") from error
    rows = zip(info.module_name(), info.channels(), info.reduction(), strict=True)
    levels = [Level(*row) for row in rows]
    indices = _in_order(name, levels, picks)
    out_indices = [info.out_indices[i] for i in indices]
    features = in_timm.build_features(name, given, out_indices=out_indices)
    return Backbone(features, tuple(levels[i] for i in indices), _head_options(options, None))


def _in_order(name: str, levels: Sequence[Level], picks: Sequence[Pick]) -> list[int]:
    return sorted({pick(name, levels) for pick in picks})


def _head_options(options: SegmenterOptions, like: NetOptions | None) -> NetOptions:
    """As the backbone, if it is ours; of timm's nets what is given."""
    given = _given(like or options, OF_HEADS)
    if "norm_options" in given and like is None:
        own = {k: v for k, v in given["norm_options"].items() if k in NORM_OPTIONS_OF_HEADS}
        given["norm_options"] = own
    if options.activation is not None:
        given["activation"] = options.activation
    return NetOptions(**given)


def _given(options: object, names: Iterable[str]) -> dict[str, Any]:
    """Those of the options that are not None."""
    values = ((name, getattr(options, name)) for name in names)
    return {name: value for name, value in values if value is not None}
