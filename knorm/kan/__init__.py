"""KAN convolutions: learnable functions in the place of weights."""

from knorm.kan.bases import BASES, Basis, make_basis
from knorm.kan.forms import FORMS, Form
from knorm.kan.layers import KANConv1d, KANConv2d, KANConv3d
from knorm.kan.wavelets import WAVELETS

__all__ = [
    "BASES",
    "FORMS",
    "WAVELETS",
    "Basis",
    "Form",
    "KANConv1d",
    "KANConv2d",
    "KANConv3d",
    "make_basis",
]
