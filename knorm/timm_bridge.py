"""The suite's nets among timm's: importing this module registers them, but for those of one study.

    import knorm.timm_bridge
    timm.create_model("knresnet50", features_only=True, out_indices=(1, 2, 3, 4))
    timm.create_model("knorm_resnet18", norm="group", num_classes=10, drop_rate=0.1)

Names that begin with kn stay, all others get `knorm_` in front, so that none is timm's: timm has
resnet18 and convnext_tiny of its own. Options are those of `knorm.create_model` and timm's
global_pool, drop_rate and, for nets with stochastic depth, drop_path_rate. State dicts are those
of `knorm.create_model`; `pretrained_cfg_overlay={"file": ...}` also takes the authors' KNResNets.
"""

from collections.abc import Mapping
from typing import Any

import torch
from timm.layers import SelectAdaptivePool2d  # pyright: ignore[reportPrivateImportUsage]
from timm.models import (
    build_model_with_cfg,
    checkpoint,
    generate_default_cfgs,
    register_model,
    register_notrace_module,
)
from torch import Tensor, nn

from knorm.checkpoints import convert_norm_torch_state_dict
from knorm.kernel import KernelNorm2d, KNConv2d
from knorm.models import create_model, list_models, model_options

PREFIX = "knorm_"

# Of nets as they are without options: side of the images, side of the last feature map, first
# convolution.
SHAPES = {
    "convnext_tiny": (224, 7, "stem.conv"),
    "convnext_small": (224, 7, "stem.conv"),
    "convnext_base": (224, 7, "stem.conv"),
    "convnext_large": (224, 7, "stem.conv"),
    "densenet20x16": (32, 8, "stem.conv"),
    "densenet121": (224, 7, "stem.conv"),
    "densenet161": (224, 7, "stem.conv"),
    "densenet169": (224, 7, "stem.conv"),
    "densenet201": (224, 7, "stem.conv"),
    "knresnet13": (32, 4, "stem.unit"),
    "knresnet18": (224, 3, "stem.unit"),
    "knresnet34": (224, 3, "stem.unit"),
    "knresnet50": (224, 7, "stem.unit"),
    "preact_resnet18": (224, 7, "stem.conv"),
    "preact_resnet34": (224, 7, "stem.conv"),
    "preact_resnet50": (224, 7, "stem.conv"),
    "preact_resnet101": (224, 7, "stem.conv"),
    "preact_resnet152": (224, 7, "stem.conv"),
    "resnet8": (32, 4, "stem.unit.conv"),
    "resnet10": (224, 7, "stem.unit.conv"),
    "resnet18": (224, 7, "stem.unit.conv"),
    "resnet34": (224, 7, "stem.unit.conv"),
    "resnet50": (224, 7, "stem.unit.conv"),
    "resnet101": (224, 7, "stem.unit.conv"),
    "resnet152": (224, 7, "stem.unit.conv"),
    "resnext10": (224, 7, "stem.unit.conv"),
    "resnext18": (224, 7, "stem.unit.conv"),
    "resnext34": (224, 7, "stem.unit.conv"),
    "resnext50": (224, 7, "stem.unit.conv"),
    "resnext101": (224, 7, "stem.unit.conv"),
    "resnext152": (224, 7, "stem.unit.conv"),
    "vgg11": (224, 7, "stem.unit.conv"),
    "vgg13": (224, 7, "stem.unit.conv"),
    "vgg16": (224, 7, "stem.unit.conv"),
    "vgg19": (224, 7, "stem.unit.conv"),
    "wide_resnet16_4": (32, 8, "stem.conv"),
    "wide_resnet40_4": (32, 8, "stem.conv"),
}
SMALLEST = {"knresnet18": 96, "knresnet34": 96}
"""side of the smallest images of nets that do not take any"""


def timm_name(name: str) -> str:
    """What timm calls a net of `knorm.list_models()`."""
    return name if name.startswith("kn") else f"{PREFIX}{name}"


class TimmNet(nn.Module):
    """A net of the suite with the methods of timm's: (N, in_chans, H, W) -> (N, num_classes).

    Args:
        model: a name of `knorm.list_models()`.
        num_classes: 0 leaves the classifier out.
        global_pool: a pooling of timm's such as "avg" or "max"; "": none, and no classifier.
        drop_rate: dropout before the classifier, in training.
        drop_path_rate: `stochastic_depth` of nets that have it.
        options: others of `knorm.create_model`.
    """

    def __init__(
        self,
        model: str,
        *,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        drop_path_rate: float | None = None,
        **options: Any,
    ):
        super().__init__()
        if drop_path_rate is not None:
            option = "stochastic_depth"
            has_depth = option in model_options(model)
            options[option if has_depth else "drop_path_rate"] = drop_path_rate
        net: Any = create_model(model, num_classes=num_classes, in_chans=in_chans, **options)
        if net.hidden:
            raise ValueError(f"{model} with hidden layers (dense) is no net for timm; leave it out")
        self.in_chans = in_chans
        self.drop_rate = drop_rate or getattr(net, "head_drop", 0.0)
        self.grad_checkpointing = False
        self.num_features: int = net.num_features
        self.pool_size: int = net.pool_size
        self.feature_info: list[dict[str, Any]] = net.feature_info
        self.features: nn.Sequential = net.features
        self.head_norm: nn.Module | None = net.head_norm
        self.global_pool: SelectAdaptivePool2d
        self.fc: nn.Module = net.fc
        self._set_pool(global_pool)
        if global_pool != "avg":
            self.reset_classifier(num_classes)
        self.num_classes = num_classes

    def _set_pool(self, global_pool: str) -> None:
        pool = SelectAdaptivePool2d(self.pool_size, pool_type=global_pool)
        if self.head_norm is not None and pool.feat_mult() != 1:
            raise ValueError(f"global_pool {global_pool!r} makes more channels than head_norm has")
        self.global_pool = pool.train(self.training)
        area = self.pool_size**2 if global_pool else 1
        self.head_hidden_size = self.num_features * area * pool.feat_mult()

    def get_classifier(self, name_only: bool = False) -> nn.Module | str:
        """The classifier, or what it is called."""
        return "fc" if name_only else self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new classifier, or none for 0 classes; the pooling stays unless one is given."""
        pool_type = self.global_pool.pool_type if global_pool is None else global_pool
        if num_classes and not pool_type:
            raise ValueError("a classifier needs pooled features; give a global_pool")
        self._set_pool(pool_type)
        self.num_classes = num_classes
        like = next(self.features.parameters())
        fc = nn.Identity()
        if num_classes:
            place = {"device": like.device, "dtype": like.dtype}
            fc = nn.Linear(self.head_hidden_size, num_classes, **place)
        self.fc = fc.train(self.training)

    def group_matcher(self, coarse: bool = False) -> Any:
        """Says of a tensor's name how deep it lies: the stage, or stage and block in it."""
        order = {name: i for i, (name, _) in enumerate(self.features.named_children())}

        def depth(name: str) -> tuple[float, ...]:
            parts = name.split(".")
            if parts[0] != "features":
                return (float("inf"),)
            block = int(parts[2]) if parts[2].isdigit() and not coarse else 0
            return float(order[parts[1]]), float(block)

        return depth

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep only the inputs of blocks for the backward pass, and compute the rest again."""
        self.grad_checkpointing = enable

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, in_chans, H, W) -> (N, num_features, H', W')."""
        for child in self.features:
            x = self._run(child, x)
        return x

    def _run(self, child: nn.Module, x: Tensor) -> Tensor:
        if not self.grad_checkpointing:
            return child(x)
        blocks = dict(child.named_children())
        stage = isinstance(child, nn.Sequential) and "0" in blocks
        for block in blocks.values() if stage else [child]:
            has_weights = next(block.parameters(), None) is not None
            x = checkpoint(block, x) if has_weights else block(x)
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(N, num_features, H', W') -> (N, num_classes), or what the classifier gets."""
        x = self.global_pool(x)
        if self.head_norm is not None:
            x = self.head_norm(x)
        if self.global_pool.pool_type:
            x = x.flatten(1)
        x = nn.functional.dropout(x, self.drop_rate, self.training)
        return x if pre_logits else self.fc(x)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The feature maps at these indices of `feature_info`, and the last one.

        Args:
            x: images, (N, in_chans, H, W).
            indices: which; a number n: the last n; None: all.
            norm: of no effect: the last map is normalized as the net has it.
            stop_early: compute nothing behind the last of them.
            output_fmt: only NCHW.
            intermediates_only: leave out the last feature map.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt takes NCHW, got {output_fmt!r}")
        taken = self._levels(indices)
        modules = [level["module"] for level in self.feature_info]
        wanted = {modules[index] for index in taken}
        found: dict[str, Tensor] = {}
        for name, child in self.features.named_children():
            x = self._run(child, x)
            if f"features.{name}" in wanted:
                found[f"features.{name}"] = x
            if stop_early and len(found) == len(wanted):
                break
        maps = [found[modules[index]] for index in taken]
        return maps if intermediates_only else (x, maps)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove what `forward_intermediates` with these indices does not need; returns them."""
        taken = self._levels(indices)
        end = self.feature_info[max(taken)]["module"].removeprefix("features.")
        names = [name for name, _ in self.features.named_children()]
        for name in names[names.index(end) + 1 :]:
            delattr(self.features, name)
        if prune_head or prune_norm:
            self.head_norm = None
        if prune_head:
            self.reset_classifier(0, "")
        return taken

    def _levels(self, indices: int | list[int] | None) -> list[int]:
        count = len(self.feature_info)
        if isinstance(indices, int):
            indices = list(range(-indices, 0))
        taken = list(range(count)) if indices is None else list(indices)
        if not taken or not all(-count <= index < count for index in taken):
            raise ValueError(f"there are {count} feature maps; no such indices: {taken}")
        return [index % count for index in taken]

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def convert(state_dict: Mapping[str, Any], net: nn.Module) -> dict[str, Tensor]:
    """The state dict of a checkpoint; one of the authors' gets our names."""
    if any(key.startswith("features.") for key in state_dict):
        return dict(state_dict)
    return convert_norm_torch_state_dict(state_dict)


def default_cfg(name: str) -> dict[str, Any]:
    """What timm wants to know of a net."""
    size, pool_size, first_conv = SHAPES[name]
    cfg = {
        "input_size": (3, size, size),
        "pool_size": (pool_size, pool_size),
        "first_conv": f"features.{first_conv}",
        "classifier": "fc",
        "interpolation": "bilinear",
        "license": "apache-2.0",
    }
    if name in SMALLEST:
        cfg["min_input_size"] = (3, SMALLEST[name], SMALLEST[name])
    return cfg


def sketch(name: str, options: Mapping[str, Any]) -> tuple[str, int]:
    """What of a net depends on its options: its first convolution, and its number of levels."""
    taken = model_options(name)
    with torch.device("meta"):
        net: Any = create_model(name, **{k: v for k, v in options.items() if k in taken})
    convs = (path for path, module in net.named_modules() if isinstance(module, nn.Conv2d))
    return next(convs, f"features.{SHAPES[name][2]}"), len(net.feature_info)


def register(name: str) -> None:
    """Make a net of the suite known to timm."""

    def build(
        pretrained: bool = False,
        pretrained_cfg_overlay: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> nn.Module:
        first_conv, num_levels = sketch(name, options)
        return build_model_with_cfg(
            TimmNet,
            timm_name(name),
            pretrained,
            pretrained_cfg_overlay={"first_conv": first_conv, **(pretrained_cfg_overlay or {})},
            feature_cfg={"flatten_sequential": True, "out_indices": tuple(range(num_levels))},
            pretrained_filter_fn=convert,
            model=name,
            **options,
        )

    build.__name__ = build.__qualname__ = timm_name(name)
    build.__doc__ = f"`knorm.create_model({name!r})` as a net of timm's."
    globals()[timm_name(name)] = register_model(build)


for _layer in (KNConv2d, KernelNorm2d):
    register_notrace_module(_layer)  # torch.fx cannot look into them: they ask for sizes
default_cfgs = generate_default_cfgs({timm_name(name): default_cfg(name) for name in SHAPES})
for _name in list_models():
    if _name in SHAPES:
        register(_name)
