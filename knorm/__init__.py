"""Kernel normalization and every other norm kind, nets made of them, and their comparison."""

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

__all__ = [
    "NORM_KINDS",
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
    "window_stats",
]
