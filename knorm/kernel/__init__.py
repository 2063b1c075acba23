"""Kernel normalization: its definition, its functions, its modules."""

from knorm.kernel.composition import normalized_conv, window_stats
from knorm.kernel.layers import (
    KernelNorm1d,
    KernelNorm2d,
    KernelNorm3d,
    KNConv1d,
    KNConv2d,
    KNConv3d,
)
from knorm.kernel.ops import kernel_norm, kn_conv

__all__ = [
    "KNConv1d",
    "KNConv2d",
    "KNConv3d",
    "KernelNorm1d",
    "KernelNorm2d",
    "KernelNorm3d",
    "kernel_norm",
    "kn_conv",
    "normalized_conv",
    "window_stats",
]
