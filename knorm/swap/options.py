"""What `swap_norm` is asked for, checked, and the norms that it concerns."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from knorm.choices import NORM_KINDS, NormKind, Stats, check_name, nearest
from knorm.kernel.composition import check_options
from knorm.swap.checks import LEAVE_OUT
from knorm.swap.forms import Norm, find_norms, is_unknown_batch_norm, normalizes

Predicate = Callable[[str, nn.Module], bool]
Modules = str | Collection[str] | Predicate | None

REMOVED = ("kernel", "none")
"""kinds for which a norm after a convolution goes away"""
DEFAULT_DROPOUT_P = 0.05
MAX_FINAL_DROPOUT_P = 0.25
MAX_GROUPS = 32


@dataclass(frozen=True, kw_only=True)
class SwapOptions:
    """The options of `swap_norm`, see there."""

    kind: NormKind
    groups: int | None = None
    affine: bool = True
    eps: float | None = None
    dropout_p: float | None = None
    eval_stats: Stats | None = None
    keep_affine: bool = True
    fold: bool = False

    def __post_init__(self):
        check_name("norm", self.kind, NORM_KINDS)
        for name in ("affine", "keep_affine", "fold"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} takes True or False, got {getattr(self, name)!r}")
        if self.groups is not None:
            self._check_concerns("groups", ("group",))
            if type(self.groups) is not int or self.groups < 1:
                raise ValueError(f"groups takes a whole number from 1 up, got {self.groups!r}")
        for name in ("dropout_p", "eval_stats"):
            if getattr(self, name) is not None:
                self._check_concerns(name, ("kernel",))
        if self.fold:
            self._check_concerns("fold", REMOVED)
        if self.kind in REMOVED:
            self._check_says_nothing_of_norms_that_stand()
        if self.eps is not None and self.kind == "none":
            raise ValueError("eps concerns norms, not kind 'none'")
        stats, eps = self.kernel_eval_stats, 1e-5 if self.eps is None else self.eps
        check_options(self.kernel_dropout_p, stats, eps)

    def _check_says_nothing_of_norms_that_stand(self) -> None:
        for name in ("affine", "keep_affine"):
            if not getattr(self, name):
                raise ValueError(f"{name}=False concerns norms that stand, not kind {self.kind!r}")

    def _check_concerns(self, option: str, kinds: tuple[str, ...]) -> None:
        if self.kind not in kinds:
            what = " or ".join(map(repr, kinds))
            raise ValueError(f"{option} concerns kind {what}, not {self.kind!r}")

    @property
    def kernel_dropout_p(self) -> float:
        """Dropout of the statistics of `KNConv` and of the `KernelNorm`s within the net."""
        return DEFAULT_DROPOUT_P if self.dropout_p is None else self.dropout_p

    @property
    def final_dropout_p(self) -> float:
        """The same for the last features: five times as much, up to a bound, as in KN nets."""
        p = self.kernel_dropout_p
        return min(5 * p, max(p, MAX_FINAL_DROPOUT_P))

    @property
    def kernel_eval_stats(self) -> Stats:
        """Statistics of all kernel layers in evaluation."""
        return self.eval_stats or "expected"

    def kernel_settings(self, norm: Norm, dropout_p: float | None = None) -> dict[str, Any]:
        """Of a kernel layer in this norm's place; `dropout_p` where it is not that of most."""
        return {
            "dropout_p": self.kernel_dropout_p if dropout_p is None else dropout_p,
            "eps": self.eps_for(norm),
            "eval_stats": self.kernel_eval_stats,
        }

    def eps_for(self, norm: Norm) -> float:
        """The one that was given, or the norm's own."""
        own = getattr(norm.module, "eps", None)
        return self.eps if self.eps is not None else 1e-5 if own is None else own


def norms_to_swap(model: nn.Module, modules: Modules) -> list[Norm]:
    """The known norms that `modules` selects.

    Raises:
        ValueError: there is none, or it selects a batch norm that is not known.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"swap_norm takes a net (nn.Module), got {model!r}")
    for name, module in model.named_modules():
        if any(is_lazy(parameter) for parameter in module.parameters(recurse=False)):
            raise ValueError(
                f"{name or 'the model itself'}: {type(module).__name__} has no shape yet; "
                "run the model once"
            )
    candidates = {name: part for name, part in model.named_modules() if normalizes(part)}
    if not candidates:
        raise ValueError(f"the model ({type(model).__name__}) has no norm to replace")
    chosen = _chosen(modules, candidates)
    known = list(find_norms(model))
    inside = {id(module) for norm in known for module in norm.module.modules()}
    for name, module in candidates.items():
        if name in chosen and is_unknown_batch_norm(module) and id(module) not in inside:
            raise ValueError(
                f"{name or 'the model itself'}: {type(module).__name__} keeps running statistics "
                f"in a form that is not known; {LEAVE_OUT}"
            )
    return [norm for norm in known if norm.name in chosen]


def _chosen(modules: Modules, candidates: Mapping[str, nn.Module]) -> set[str]:
    """The names of those that `modules` selects: one at least."""
    names = list(candidates)
    if modules is None:
        return set(names)
    if callable(modules):
        chosen = {name for name, module in candidates.items() if modules(name, module)}
        if not chosen:
            raise ValueError(f"modules selects none of the {len(names)} norms ({_some(names)})")
        return chosen
    patterns = [modules] if isinstance(modules, str) else modules
    if not isinstance(patterns, Collection):
        raise ValueError(f"modules takes patterns of names or a function, got {modules!r}")
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise ValueError(f"modules takes patterns of names or a function, got {pattern!r}")
        if not any(fnmatchcase(name, pattern) for name in names):
            hint = nearest(pattern, names)
            raise ValueError(f"modules: no norm is named {pattern!r}{hint} ({_some(names)})")
    if not patterns:
        raise ValueError("modules is empty: it selects no norm")
    return {name for name in names for pattern in patterns if fnmatchcase(name, pattern)}


def _some(names: list[str]) -> str:
    return f"they are {', '.join(names[:3])}" + (", ..." if len(names) > 3 else "")
