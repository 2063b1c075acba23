"""Swap the norms of any net for those of another kind, and say what became of each."""

from torch import nn

from knorm.choices import NormKind, Stats
from knorm.swap.flow import copied
from knorm.swap.options import Modules, SwapOptions, norms_to_swap
from knorm.swap.plan import make_plan
from knorm.swap.report import Report, Row, count_parameters

__all__ = ["Report", "Row", "swap_norm"]


def swap_norm(
    model: nn.Module,
    kind: NormKind,
    *,
    groups: int | None = None,
    affine: bool = True,
    eps: float | None = None,
    dropout_p: float | None = None,
    eval_stats: Stats | None = None,
    modules: Modules = None,
    keep_affine: bool = True,
    fold: bool = False,
    inplace: bool = False,
) -> tuple[nn.Module, Report]:
    """The net with norms of another kind, and what became of each of its norms.

    Known are torch's norms, timm's (activation and dropout within them stay), torchvision's and
    ours. A norm of the wanted kind stays as it is, bit for bit; so does one that the kind cannot
    replace and that sees no batch (channels last, i.e. on tokens, in all kinds but "layer",
    "kernel" and "none"): the report says why.

    "kernel" makes one `KNConv` of a convolution and the norm that alone takes its output: weight
    kept, bias added, the norm removed. Other norms become a `KernelNorm` of kernel 1, and one more
    normalizes the last features. Which convolution gives to which norm is read from the forwards
    of the modules, by `torch.fx`.

    Args:
        model: any net; untouched unless `inplace`, and then too if an error is raised.
        kind: a norm kind of `knorm.make_norm`.
        groups: of "group"; None: those of each group norm that there is, otherwise the most
            groups up to 32 that leave at least two channels in each, 16 in one dimension.
        affine: the new norms have a scale and a shift, where their kind has.
        eps: added to variances; None: as in each norm that is replaced.
        dropout_p: of the statistics of "kernel" (default 0.05); the last features have five
            times as much, at most 0.25, as KNResNets.
        eval_stats: of "kernel", the statistics in evaluation (default "expected"), see
            `KNConv2d`.
        modules: which norms: a shell-style pattern of names, several, or a function of name and
            module; None: all.
        keep_affine: the new norms take the scale and shift of the old ones.
        fold: with "none" and "kernel", batch norms that go away leave their scale and shift (with
            running statistics) in the convolution before them, or, for "none", as a layer of
            their own. Outputs in evaluation are then those that were with "none".
        inplace: change the model itself.

    Returns:
        The net, in the mode (training or evaluation) of each part, and a `Report`.

    Raises:
        ValueError: an unknown kind; no norm to replace; groups that do not divide; batch
            statistics of unknown form; hooks or parametrizations of a norm, or places beside its
            parent that hold it (containers, bound methods, partials) or read its tensors, which
            would be lost; a net that is wrapped for distributed training or cannot be copied. The
            message names the module.
    """
    options = SwapOptions(
        kind=kind, groups=groups, affine=affine, eps=eps, dropout_p=dropout_p,
        eval_stats=eval_stats, keep_affine=keep_affine, fold=fold,
    )  # fmt: skip
    if not isinstance(inplace, bool):
        raise ValueError(f"inplace takes True or False, got {inplace!r}")
    net = model if inplace else copied(model)
    plan = make_plan(net, norms_to_swap(net, modules), options)
    before = count_parameters(net)
    for name, module in plan.edits.items():
        net = _put(net, name, module)
    return net, Report(kind, tuple(plan.rows.values()), before, count_parameters(net))


def _put(net: nn.Module, name: str, module: nn.Module) -> nn.Module:
    """`module` at every place where the one of this name stands; the net, or `module` itself."""
    if not name:
        return module
    old = net.get_submodule(name)
    places = [name for name, other in net.named_modules(remove_duplicate=False) if other is old]
    for place in places:
        parent, _, child = place.rpartition(".")
        net.get_submodule(parent)._modules[child] = module
    return net
