"""Kernel normalization and every other norm kind, nets made of them, and their comparison.

What stands here is imported when it is first asked for: `knorm --help` need not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from knorm.kan import KANConv1d, KANConv2d, KANConv3d
    from knorm.kernel import (
        KernelNorm1d,
        KernelNorm2d,
        KernelNorm3d,
        KNConv1d,
        KNConv2d,
        KNConv3d,
        kernel_norm,
        kn_conv,
        normalized_conv,
        window_stats,
    )
    from knorm.models import create_model, list_models
    from knorm.norms import NORM_KINDS, LocalContextNorm, conv_unit, make_norm
    from knorm.swap import swap_norm

__all__ = [
    "NORM_KINDS",
    "KANConv1d",
    "KANConv2d",
    "KANConv3d",
    "KNConv1d",
    "KNConv2d",
    "KNConv3d",
    "KernelNorm1d",
    "KernelNorm2d",
    "KernelNorm3d",
    "LocalContextNorm",
    "conv_unit",
    "create_model",
    "kernel_norm",
    "kn_conv",
    "list_models",
    "make_norm",
    "normalized_conv",
    "swap_norm",
    "window_stats",
]

_HOMES = ("kernel", "norms", "kan", "models", "swap", "checkpoints")


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return import_module(f"knorm.{name}")
    if name in __all__:
        homes = (import_module(f"knorm.{home}") for home in _HOMES)
        globals()[name] = value = next(getattr(h, name) for h in homes if hasattr(h, name))
        return value
    raise AttributeError(f"module 'knorm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_HOMES})
