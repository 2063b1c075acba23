"""Nets of four or eight KAN convolutions, or of plain ones, for small images.

Source: the comparison of KAN convolutions on MNIST and CIFAR in IvanDrokin/torch-conv-kan (two
studies, "prelim" and "updated"). All convolutions are 3x3, the first of them without groups.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from knorm.choices import check_name
from knorm.kan import FORMS, KANConv2d
from knorm.kan.forms import INITS, SCALINGS, Init, Scaling
from knorm.models.common import (
    ACTIVATIONS,
    Classifier,
    NetOptions,
    check_count,
    check_probability,
    largest_divisor,
    sequence,
)
from knorm.models.registry import register_model

PLAIN = "plain"
CONVS = (PLAIN, *FORMS)
STRIDES = {4: (1, 2, 2, 1), 8: (1, 2, 2, 1, 1, 2, 1, 1)}
WIDTHS = {
    4: {"updated": (32, 64, 128, 256), "prelim": (32, 64, 128, 512)},
    8: {
        "updated": (16, 32, 64, 128, 256, 256, 512, 512),
        "prelim": (32, 64, 128, 512, 1024, 1024, 1024, 1024),
    },
}
DROP_FROM_THE_FIRST = ("kacn", 8)  # as published: all others drop from the second layer on
OWN = "own"


@dataclass(frozen=True, kw_only=True)
class KANNetOptions(NetOptions):
    """`NetOptions` for small images, and which convolutions the net is made of.

    Group norm of the image itself, with which "fastkan" begins, has as many groups at most as
    divide its channels.
    """

    stem: str = "cifar"
    activation: str = OWN
    """own: that of the convolution, ReLU after a plain one; or a row of `ACTIVATIONS`, which takes
    its place"""
    conv: str = "kan"
    """plain, or a row of `knorm.kan.FORMS`"""
    widths: str | Sequence[int] | None = None
    """output channels of each layer, or those of a study, prelim or updated; None: updated"""
    groups: int = 1
    """of all convolutions but the first"""
    basis_options: Mapping[str, Any] = field(default_factory=dict)
    """of `knorm.kan.make_basis`: grid_size, order, grid_range, degree, form, wavelet, ..."""
    scaling: Scaling | None = None
    """what brings inputs into the range of the basis: none, tanh, batch; None: as the form has"""
    init: Init | None = None
    """how weights begin, fixed or published; None: fixed, or published if all is"""
    published: bool = False
    """options left out are as published where that has defects; see `knorm.kan.Form.published`"""
    drop: float = 0.25
    """probability with which a whole channel is dropped, from the second layer on"""
    head_drop: float = 0.5
    """dropout before the classifier"""
    allow_constant: bool = False
    """build a net even if its last norm leaves global pooling nothing to tell images apart"""

    bias: ClassVar[bool | None] = True
    activations: ClassVar[Mapping[str, Callable[[], nn.Module]]] = {OWN: nn.ReLU, **ACTIVATIONS}

    def __post_init__(self):
        super().__post_init__()
        check_name("conv", self.conv, CONVS)
        check_count("groups", self.groups)
        for name in ("drop", "head_drop"):
            check_probability(name, getattr(self, name))
        if self.scaling is not None:
            check_name("scaling", self.scaling, SCALINGS)
        if self.init is not None:
            check_name("init", self.init, INITS)
        if not isinstance(self.basis_options, Mapping):
            raise ValueError(f"basis_options takes names and values, got {self.basis_options!r}")
        if self.conv == PLAIN and (self.basis_options or self.scaling or self.init):
            raise ValueError("conv 'plain' has no basis: leave basis_options, scaling, init out")

    def widths_of(self, depth: int) -> tuple[int, ...]:
        """Output channels of each layer."""
        if self.widths is None or isinstance(self.widths, str):
            name = self.widths or "updated"
            check_name("widths", name, WIDTHS[depth])
            return WIDTHS[depth][name]
        if not isinstance(self.widths, Sequence) or len(self.widths) != depth:
            raise ValueError(f"widths takes {depth} numbers or a name, got {self.widths!r}")
        for width in self.widths:
            check_count("widths", width)
        return tuple(self.widths)

    def make_layer(self, *shape: int, groups: int, drop: float) -> nn.Module:
        """A convolution with norm, activation and dropout: (in, out, kernel, stride, padding)."""
        if self.conv == PLAIN:
            unit = self.make_unit(*shape, groups=groups)
            return sequence(unit=unit, act=self.make_act(), drop=nn.Dropout2d(drop))
        form, given = FORMS[self.conv], self._form_options()
        channels = shape[0] if form.norm_on == "input" else shape[1]
        is_kernel = self.norm == "kernel"
        return KANConv2d(
            *shape,
            groups=groups,
            form=self.conv,
            norm=self.norm,
            norm_options=self._kernel_options(self.dropout_p)
            if is_kernel
            else self._norm_options(channels),
            act=None if self.activation == OWN else self.make_act(),
            drop=drop,
            **given,
        )

    def check_not_constant(self, channels: int) -> None:
        """Raise ValueError where the last layer ends in a norm of each image's every channel."""
        if self.allow_constant or not self._ends_in_norm():
            return
        options = self._norm_options(channels)
        alone = {
            "instance": True,
            "group": options.get("groups") == channels,
            "local_context": options.get("channels_per_group") == 1,
        }
        if alone.get(self.norm, False):
            raise ValueError(
                f"norm {self.norm!r} right before global pooling gives every image the same "
                f"features, so that a net of {self.conv!r} cannot learn; take another norm, an "
                "activation after it, or allow_constant=True"
            )

    def _norm_options(self, channels: int) -> dict[str, Any]:
        options = super()._norm_options(channels)
        if self.norm == "group" and channels == self.in_chans:  # FastKAN normalizes the image too
            options["groups"] = largest_divisor(channels, options["groups"])
        return options

    def _ends_in_norm(self) -> bool:
        if self.activation != OWN:
            bare = self.activation == "none"
        else:
            bare = self.conv != PLAIN and FORMS[self.conv].act is None
        return bare and (self.conv == PLAIN or FORMS[self.conv].norm_on == "output")

    def _form_options(self) -> dict[str, Any]:
        published = dict(FORMS[self.conv].published) if self.published else {}
        basis_options = {**published.get("basis_options", {}), **self.basis_options}
        return {
            "basis_options": basis_options,
            "scaling": self.scaling or published.get("scaling"),
            "init": self.init or ("published" if self.published else "fixed"),
        }


class KANNet(Classifier):
    """A net of KAN convolutions, (N, in_chans, H, W) -> (N, num_classes).

    Options: those of `KANNetOptions`; norm "batch" by default.
    """

    Options: ClassVar = KANNetOptions

    def __init__(self, depth: int, **given: Any):
        options = KANNetOptions(**given)
        widths, stem = options.widths_of(depth), options.stems[options.stem]
        options.check_not_constant(widths[-1])
        everywhere = options.published and (options.conv, depth) == DROP_FROM_THE_FIRST
        first = (options.in_chans, widths[0], stem.kernel_size, stem.stride, stem.padding)
        layers: dict[str, nn.Module | None] = {
            "stem": options.make_layer(*first, groups=1, drop=options.drop if everywhere else 0.0),
            "stem_pool": options.make_stem_pool(),
        }
        stages, reduction = {}, 1
        for number in range(2, depth + 1):
            inputs, outputs = widths[number - 2 : number]
            stride = STRIDES[depth][number - 1]
            layers[f"layer{number}"] = options.make_layer(
                inputs, outputs, 3, stride, 1, groups=options.groups, drop=options.drop
            )
            reduction *= stride
            stages[reduction] = (f"layer{number}", outputs)  # the last layer of each resolution
        levels = {name: (width, stride) for stride, (name, width) in stages.items()}
        super().__init__(
            sequence(**layers), options.levels(widths[0], **levels), options.num_classes
        )
        self.head_drop = options.head_drop

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(N, num_features, H', W') -> (N, num_classes), or what the classifier gets."""
        pooled = super().forward_head(x, pre_logits=True)
        pooled = F.dropout(pooled, self.head_drop, self.training)
        return pooled if pre_logits else self.fc(pooled)


@register_model
def kannet4(**options: Any) -> KANNet:
    """Four KAN convolutions."""
    return KANNet(4, **options)


@register_model
def kannet8(**options: Any) -> KANNet:
    """Eight KAN convolutions."""
    return KANNet(8, **options)
