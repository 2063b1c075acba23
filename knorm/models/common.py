"""What the nets share: their options and the layers made from them, stems, the classifier.

Shapes: N samples, C channels, H W pixels.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, get_args

from torch import Tensor, nn

from knorm import norms
from knorm.choices import NORM_KINDS, NormKind, Stats, check_name

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "celu": nn.CELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "hardswish": nn.Hardswish,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
    "none": nn.Identity,
}


@dataclass(frozen=True)
class Stem:
    """A net's first convolution and the max pooling after it.

    The convolution is padded by half its kernel, but not where it cuts the image into patches.
    `bare`: in nets whose blocks begin with norm and activation, the convolution stands without
    them. Nets whose units end with norm and activation have them after any stem.
    """

    kernel_size: int
    stride: int
    pool: bool
    bare: bool

    @property
    def padding(self) -> int:
        """Of the convolution; patches do not overlap."""
        return 0 if self.kernel_size == self.stride else self.kernel_size // 2

    @property
    def total_stride(self) -> int:
        """Input pixels per pixel of the stem's output."""
        return self.stride * (2 if self.pool else 1)


STEMS = {
    "cifar": Stem(3, 1, pool=False, bare=True),
    "imagenet": Stem(7, 2, pool=True, bare=False),
    "5x5_stride2_pool": Stem(5, 2, pool=True, bare=False),
    "7x7_stride2": Stem(7, 2, pool=False, bare=True),
}

# What `norm_options` may hold for the kinds that `make_norm` alone cannot check.
NORM_OPTIONS: dict[str, tuple[str, ...]] = {"kernel": ("eps", "bounded"), "none": ()}


@dataclass(frozen=True, kw_only=True)
class NetOptions:
    """The options that every net takes, and the layers they ask for."""

    num_classes: int = 1000
    """0 leaves the classifier out: the net gives its pooled features"""
    in_chans: int = 3
    """channels of the input"""
    norm: NormKind = "batch"
    """kind of all norms of the net"""
    stem: str = "imagenet"
    """a row of `stems`"""
    activation: str = "relu"
    """a row of `activations`"""
    dropout_p: float = 0.05
    """dropout of the statistics of kernel-normalized convolutions; no other kind drops"""
    final_dropout_p: float | None = None
    """the same for the `KernelNorm` before pooling; None: five times dropout_p, up to a bound"""
    eval_stats: Stats = "expected"
    """statistics of all kernel layers in evaluation, see `KNConv2d`"""
    norm_options: Mapping[str, Any] | None = None
    """further options of the norms: groups of "group", eps, ..."""

    bias: ClassVar[bool | None] = None
    """convolutions of the "none" kind have biases; False: they have none"""
    final_dropout_bound: ClassVar[float] = 0.25
    num_groups: ClassVar[int] = 32
    """groups of "group", or the most below that divides the channels"""
    stems: ClassVar[Mapping[str, Stem]] = STEMS
    """the stems that the net may have"""
    activations: ClassVar[Mapping[str, Callable[[], nn.Module]]] = ACTIVATIONS
    """the activations that the net may have"""

    def __post_init__(self):
        check_count("num_classes", self.num_classes, least=0)
        check_count("in_chans", self.in_chans)
        check_name("stem", self.stem, self.stems)
        check_name("activation", self.activation, self.activations)
        check_name("norm", self.norm, NORM_KINDS)
        check_name("eval_stats", self.eval_stats, get_args(Stats))
        check_probability("dropout_p", self.dropout_p)
        if self.final_dropout_p is not None:
            check_probability("final_dropout_p", self.final_dropout_p)
        self._check_norm_options()

    def _check_norm_options(self):
        if self.norm_options is None:
            return
        if not isinstance(self.norm_options, Mapping):
            raise ValueError(f"norm_options takes names and values, got {self.norm_options!r}")
        taken = NORM_OPTIONS.get(self.norm, tuple(self.norm_options))
        for option in self.norm_options:
            if option not in taken:
                what = ", ".join(taken) or "none at all"
                raise ValueError(f"norm {self.norm!r} takes no option {option!r}; it takes {what}")

    def make_act(self) -> nn.Module:
        """A new activation."""
        return self.activations[self.activation]()

    def make_conv(self, *args: int, **options) -> nn.Module:
        """`knorm.norms.make_conv` of this net's kind: (in, out, kernel, stride=1, padding=0)."""
        return norms.make_conv(
            self.norm,
            *args,
            bias=self._conv_bias(),
            kernel_options=self._kernel_options(self.dropout_p),
            **options,
        )

    def make_unit(self, in_channels: int, out_channels: int, *args: int, **options) -> nn.Module:
        """`knorm.norms.conv_unit` of this net's kind, arguments as in `make_conv`."""
        return norms.conv_unit(
            self.norm,
            in_channels,
            out_channels,
            *args,
            bias=self._conv_bias(),
            norm_options=None if self.norm == "kernel" else self._norm_options(out_channels),
            kernel_options=self._kernel_options(self.dropout_p),
            **options,
        )

    def make_preact_norm(self, channels: int) -> nn.Module | None:
        """The norm before an activation and a convolution; a `KNConv2d` normalizes by itself."""
        return None if self.norm == "kernel" else self.make_final_norm(channels)

    def make_final_norm(self, channels: int) -> nn.Module:
        """The norm before pooling; for "kernel" a 1x1 `KernelNorm2d` with dropout of its own."""
        if self.norm != "kernel":
            return norms.make_norm(self.norm, channels, **self._norm_options(channels))
        dropout_p = self.final_dropout_p
        if dropout_p is None:
            dropout_p = min(5 * self.dropout_p, self.final_dropout_bound)
        return norms.make_norm("kernel", channels, **self._kernel_options(dropout_p))

    def make_final_kernel_norm(self, channels: int) -> nn.Module | None:
        """`make_final_norm` in nets whose units end with their norm, save for "kernel"."""
        return self.make_final_norm(channels) if self.norm == "kernel" else None

    def make_stem(self, channels: int, *, act: bool) -> nn.Sequential:
        """The stem of a net of units: one, and its activation if wanted."""
        return sequence(
            unit=self.make_unit(*self._stem_shape(channels)),
            act=self.make_act() if act else None,
        )

    def make_preact_stem(self, channels: int) -> nn.Sequential:
        """The stem of a net whose blocks begin with norm and activation; see `Stem.bare`."""
        bare = self.stems[self.stem].bare
        return sequence(
            conv=self.make_conv(*self._stem_shape(channels)),
            norm=None if bare else self.make_preact_norm(channels),
            act=None if bare else self.make_act(),
        )

    def make_stem_pool(self) -> nn.Module | None:
        """The pooling after the stem, where it has one."""
        return nn.MaxPool2d(3, stride=2, padding=1) if self.stems[self.stem].pool else None

    def levels(self, stem_channels: int, **stages: tuple[int, int]) -> list["Level"]:
        """The levels of a net: its stem, where that is finer than what follows, and its stages.

        `stages`: for a child of the features its channels and its stride over stem and pooling.
        """
        stem = self.stems[self.stem]
        found = [
            Level(f"features.{name}", channels, stem.total_stride * stride)
            for name, (channels, stride) in stages.items()
        ]
        if stem.stride < found[0].reduction:
            found.insert(0, Level("features.stem", stem_channels, stem.stride))
        return found

    def _stem_shape(self, channels: int) -> tuple[int, int, int, int, int]:
        stem = self.stems[self.stem]
        return self.in_chans, channels, stem.kernel_size, stem.stride, stem.padding

    def _conv_bias(self) -> bool | None:
        return None if self.norm == "kernel" else self.bias

    def _norm_options(self, channels: int) -> dict[str, Any]:
        shared = {"group": ("groups", self.num_groups), "local_context": ("channels_per_group", 2)}
        given = dict(self.norm_options or {})
        if self.norm not in shared:
            return given
        name, most = shared[self.norm]
        return {name: largest_divisor(channels, most)} | given

    def _kernel_options(self, dropout_p: float) -> dict[str, Any]:
        given = dict(self.norm_options or {}) if self.norm == "kernel" else {}
        return {"dropout_p": dropout_p, "eval_stats": self.eval_stats} | given


class Level(NamedTuple):
    """A feature map that other nets may build on; the names are those of timm's `feature_info`."""

    module: str
    """where it comes out"""
    num_chs: int
    reduction: int
    """input pixels per pixel of it, borders aside"""


class Classifier(nn.Module):
    """A net that classifies images: (N, in_chans, H, W) -> (N, num_classes).

    `forward_features` gives the last feature map (N, num_features, H', W'); `forward_head` pools
    it to pool_size x pool_size and classifies, through `hidden` layers if there are such.
    `feature_info` holds the `Level`s as dictionaries, coarser and coarser; the last of them is the
    last feature map, whatever follows its stage.
    """

    Options: ClassVar[type[NetOptions]] = NetOptions

    def __init__(
        self,
        features: nn.Sequential,
        levels: Sequence[Level],
        num_classes: int,
        *,
        pool_size: int = 1,
        head_norm: nn.Module | None = None,
        hidden: "HiddenLayers | None" = None,
    ):
        super().__init__()
        self.num_classes = num_classes
        self.num_features = levels[-1].num_chs
        *_, (last, _) = features.named_children()
        levels = [*levels[:-1], levels[-1]._replace(module=f"features.{last}")]
        self.feature_info = [level._asdict() for level in levels]
        self.features = features
        self.pool_size = pool_size
        self.pool = nn.AdaptiveAvgPool2d(pool_size)
        self.head_norm = head_norm
        self.hidden = hidden
        inputs = self.num_features * pool_size**2 if hidden is None else hidden.out_features
        self.fc = nn.Linear(inputs, num_classes) if num_classes else nn.Identity()

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, in_chans, H, W) -> (N, num_features, H', W')."""
        return self.features(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(N, num_features, H', W') -> (N, num_classes), or what the classifier gets."""
        x = self.pool(x)
        if self.head_norm is not None:
            x = self.head_norm(x)
        x = x.flatten(1)
        if self.hidden is not None:
            x = self.hidden(x)
        return x if pre_logits else self.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


class HiddenLayers(nn.Sequential):
    """Linear layers, each with dropout and then an activation: (N, in_features) -> the last size.

    in_features: channels times positions of the map that is flattened.
    """

    def __init__(self, options: NetOptions, in_features: int, sizes: Sequence[int], drop: float):
        super().__init__()
        self.out_features = in_features
        for i, size in enumerate(sizes, start=1):
            self.add_module(f"linear{i}", nn.Linear(self.out_features, size))
            if drop:
                self.add_module(f"drop{i}", nn.Dropout(drop))
            self.add_module(f"act{i}", options.make_act())
            self.out_features = size


def sequence(**layers: nn.Module | None) -> nn.Sequential:
    """The layers in this order, by their names; None is left out."""
    kept = ((name, layer) for name, layer in layers.items() if layer is not None)
    return nn.Sequential(OrderedDict(kept))


def init_convs(net: nn.Module) -> None:
    """Convolutions: weights normal with variance 2 / fan-out (He et al. 2015), biases 0.

    Norms keep torch's scale 1 and shift 0.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def largest_divisor(number: int, most: int) -> int:
    """The largest divisor of `number` that is at most `most`."""
    return next(n for n in range(min(number, most), 0, -1) if number % n == 0)


def scaled(channels: int, width: float) -> int:
    """`channels` times `width`, which must be a whole number."""
    product = channels * width
    if product < 1 or product != round(product):
        raise ValueError(f"width={width} makes {product:g} of {channels} channels; take whole ones")
    return round(product)


def check_count(name: str, value: object, least: int = 1) -> None:
    """`value` is a whole number, `least` or more."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} takes a whole number, at least {least}, got {value!r}")


def check_counts(name: str, values: object, least: int = 1) -> None:
    """`values` is a list of whole numbers from 1 up, `least` of them or more."""
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) < least:
        raise ValueError(f"{name} takes a list of whole numbers, got {values!r}")
    for value in values:
        check_count(name, value)


def check_flag(name: str, value: object) -> None:
    """`value` is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} takes True or False, got {value!r}")


def check_probability(name: str, value: object) -> None:
    """`value` is in [0, 1)."""
    if not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise ValueError(f"{name} takes a number in [0, 1), got {value!r}")
