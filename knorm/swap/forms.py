"""Which norms are known, and what their classes say of themselves."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from knorm.kernel import KNConv1d, KNConv2d, KNConv3d

Family = Literal[
    "batch", "sync_batch", "frozen_batch", "group", "layer", "instance", "local_context",
    "kernel", "rms", "response", "evo",
]  # fmt: skip


@dataclass(frozen=True)
class Form:
    """What a class of norms does, and to which tensors."""

    family: Family
    """a norm kind where it is one; `layer` also is the norm of every position over channels"""
    num_dims: int | None = None
    """spatial dimensions of (N, C, *space); None: any number"""
    tokens: bool = False
    """channels come last: (N, L, C) or (N, H, W, C)"""
    act: Literal["act", "tlu", "gate", "fused", None] = None
    """activation within: a child `act`, a learned threshold `tau`, a learned gate `v`, or one that
    cannot be told from the norm"""

    @property
    def sees_batch(self) -> bool:
        """Whether a sample's output in training depends on the other samples."""
        return self.family in ("batch", "sync_batch") or self.act == "fused"


_BATCH_2D = Form("batch", 2)
_LAYER_2D = Form("layer", 2)
_TOKENS = Form("layer", tokens=True)
_RMS_2D = Form("rms", 2)
_RMS_TOKENS = Form("rms", tokens=True)
_EVO_GATE = Form("evo", 2, act="gate")
_EVO_ACT = Form("evo", 2, act="act")
_EVO_FUSED = Form("evo", 2, act="fused")

# By the package that defines the class and the class's name: neither timm nor torchvision is
# imported for it.
FORMS: dict[tuple[str, str], Form] = {
    ("torch", "BatchNorm1d"): Form("batch", 1),
    ("torch", "BatchNorm2d"): _BATCH_2D,
    ("torch", "BatchNorm3d"): Form("batch", 3),
    ("torch", "SyncBatchNorm"): Form("sync_batch"),
    ("torch", "GroupNorm"): Form("group"),
    ("torch", "LayerNorm"): _TOKENS,
    ("torch", "RMSNorm"): _RMS_TOKENS,
    ("torch", "InstanceNorm1d"): Form("instance", 1),
    ("torch", "InstanceNorm2d"): Form("instance", 2),
    ("torch", "InstanceNorm3d"): Form("instance", 3),
    ("torchvision", "FrozenBatchNorm2d"): Form("frozen_batch", 2),
    ("torchvision", "LayerNorm2d"): _LAYER_2D,
    ("timm", "BatchNormAct2d"): Form("batch", 2, act="act"),
    ("timm", "SyncBatchNormAct"): Form("sync_batch", 2, act="act"),
    ("timm", "FrozenBatchNormAct2d"): Form("frozen_batch", 2, act="act"),
    ("timm", "GroupNorm"): Form("group"),
    ("timm", "GroupNorm1"): Form("group"),
    ("timm", "GroupNormAct"): Form("group", act="act"),
    ("timm", "GroupNorm1Act"): Form("group", act="act"),
    ("timm", "LayerNorm"): _TOKENS,
    ("timm", "LayerNormFp32"): _TOKENS,
    ("timm", "LayerNormAct"): Form("layer", tokens=True, act="act"),
    ("timm", "LayerNormActFp32"): Form("layer", tokens=True, act="act"),
    ("timm", "LayerNorm2d"): _LAYER_2D,
    ("timm", "LayerNorm2dFp32"): _LAYER_2D,
    ("timm", "LayerNormExp2d"): _LAYER_2D,
    ("timm", "LayerNormAct2d"): Form("layer", 2, act="act"),
    ("timm", "LayerNormAct2dFp32"): Form("layer", 2, act="act"),
    ("timm", "RmsNorm"): _RMS_TOKENS,
    ("timm", "RmsNormFp32"): _RMS_TOKENS,
    ("timm", "RmsNormAct"): Form("rms", tokens=True, act="act"),
    ("timm", "RmsNormActFp32"): Form("rms", tokens=True, act="act"),
    ("timm", "RmsNorm2d"): _RMS_2D,
    ("timm", "RmsNorm2dFp32"): _RMS_2D,
    ("timm", "RmsNormAct2d"): Form("rms", 2, act="act"),
    ("timm", "RmsNormAct2dFp32"): Form("rms", 2, act="act"),
    ("timm", "SimpleNorm"): _RMS_TOKENS,
    ("timm", "SimpleNormFp32"): _RMS_TOKENS,
    ("timm", "SimpleNorm2d"): _RMS_2D,
    ("timm", "SimpleNorm2dFp32"): _RMS_2D,
    ("timm", "FilterResponseNormTlu2d"): Form("response", 2, act="tlu"),
    ("timm", "FilterResponseNormAct2d"): Form("response", 2, act="act"),
    ("timm", "EvoNorm2dB0"): _EVO_FUSED,
    ("timm", "EvoNorm2dB1"): _EVO_FUSED,
    ("timm", "EvoNorm2dB2"): _EVO_FUSED,
    ("timm", "EvoNorm2dS0"): _EVO_GATE,
    ("timm", "EvoNorm2dS0a"): _EVO_GATE,
    ("timm", "EvoNorm2dS1"): _EVO_ACT,
    ("timm", "EvoNorm2dS1a"): _EVO_ACT,
    ("timm", "EvoNorm2dS2"): _EVO_ACT,
    ("timm", "EvoNorm2dS2a"): _EVO_ACT,
    ("knorm", "LocalContextNorm"): Form("local_context", 2),
    ("knorm", "KernelNorm1d"): Form("kernel", 1),
    ("knorm", "KernelNorm2d"): Form("kernel", 2),
    ("knorm", "KernelNorm3d"): Form("kernel", 3),
    ("knorm", "PositionNorm"): Form("kernel"),
    ("knorm", "InstanceNorm"): Form("instance"),
    ("knorm", "LayerNorm2d"): _LAYER_2D,
}


HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
KNConv = KNConv1d | KNConv2d | KNConv3d
TORCH_NORMS = nn.modules.batchnorm._NormBase | nn.LayerNorm | nn.GroupNorm | nn.RMSNorm
NORM_NAME = re.compile(r"[A-Za-z]\w*Norm(\dd)?")


def defining_class(module: nn.Module, names: set[tuple[str, str]]) -> type | None:
    """The class of `module` or the nearest base among (package, class name), if its forward is
    the one that runs."""
    for base in type(module).__mro__:
        if (base.__module__.partition(".")[0], base.__name__) in names:
            own = "forward" in vars(module) or type(module).forward is not base.forward
            return None if own else base
    return None


@dataclass(frozen=True)
class Norm:
    """A norm of a net."""

    name: str
    module: nn.Module
    form: Form
    like: Tensor | None = None
    """a tensor of the net that tells device and type, where the norm has none itself"""

    @property
    def kind(self) -> str:
        """Its norm kind, or its family where it is none."""
        one_group = self.form.family == "group" and getattr(self.module, "num_groups", 0) == 1
        return "layer" if one_group else self.form.family

    @property
    def channels(self) -> int | None:
        """C; None for a norm that does not say it, or that spans more than the channels."""
        for name in ("num_features", "num_channels", "normalized_shape"):
            value = getattr(self.module, name, None)
            if isinstance(value, int):
                return value
            if isinstance(value, tuple | list):
                return value[0] if len(value) == 1 else None
        weight = getattr(self.module, "weight", None)
        return None if weight is None else weight.numel()

    @property
    def place(self) -> str:
        """The name for messages."""
        return self.name or "(the model itself)"


def find_norms(model: nn.Module) -> Iterator[Norm]:
    """All known norms, each once, by the first of its names."""
    like = next(model.parameters(), None)
    for name, module in model.named_modules():
        like = next(module.parameters(recurse=False), like)
        base = defining_class(module, set(FORMS))
        if base is not None:
            package = base.__module__.partition(".")[0]
            yield Norm(name, module, FORMS[package, base.__name__], like)


def normalizes(module: nn.Module) -> bool:
    """Whether it is a norm, of known form or not, or a convolution that is one with its norm."""
    known = defining_class(module, set(FORMS)) is not None
    return known or isinstance(module, KNConv) or is_unknown_norm(module)


def is_unknown_norm(module: nn.Module) -> bool:
    """Whether it is a norm by its class, or the name of that, in a form that is not known."""
    if defining_class(module, set(FORMS)) is not None:
        return False
    named = NORM_NAME.fullmatch(type(module).__name__) and next(module.children(), None) is None
    return bool(named) or isinstance(module, TORCH_NORMS) or is_unknown_batch_norm(module)


def is_unknown_batch_norm(module: nn.Module) -> bool:
    """Whether it keeps running statistics, in a form that is not known."""
    own = {name for name, _ in module.named_buffers(recurse=False)}
    known = defining_class(module, set(FORMS)) is not None
    return not known and (
        isinstance(module, nn.modules.batchnorm._BatchNorm) or "running_var" in own
    )
