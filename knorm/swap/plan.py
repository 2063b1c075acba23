"""What will stand where: all of it is made before anything is replaced."""

from collections import OrderedDict
from dataclasses import dataclass, field

from torch import nn

from knorm.swap.checks import check_replaceable, check_unwrapped
from knorm.swap.convs import Conv, folded, to_kernel, why_not_fold, why_not_kernel
from knorm.swap.flow import Flow
from knorm.swap.forms import Norm, find_norms
from knorm.swap.layers import Copy, PositionNorm
from knorm.swap.norms import (
    LEFT_OUT,
    activation,
    bystanders,
    check_groups,
    position_norm,
    reason_to_stay,
    replacement,
    scale_and_shift,
    standing_scale,
    stays,
    with_extras,
)
from knorm.swap.options import REMOVED, SwapOptions
from knorm.swap.report import Row, describe, join_notes

# Layers that pool all positions, by name: torch's, and timm's that do not pool over the channels.
GLOBAL_POOLS = {
    **{f"Adaptive{how}Pool{dims}d": dims for how in ("Avg", "Max") for dims in (1, 2, 3)},
    **{f"FastAdaptive{how}Pool": 2 for how in ("Avg", "Max", "AvgMax", "CatAvgMax")},
    "AdaptiveAvgMaxPool2d": 2,
    "AdaptiveCatAvgMaxPool2d": 2,
}

FOLDED = ("scale", "shift")  # what a report says is kept of a batch norm that was folded


@dataclass
class Plan:
    """The modules that will stand in place of others, by name, and what there is to say of it."""

    edits: dict[str, nn.Module] = field(default_factory=dict)
    rows: dict[str, Row] = field(default_factory=dict)

    def put(self, module: nn.Module, row: Row) -> None:
        """`module` in place of the one that the row names."""
        self.edits[row.name] = module
        self.rows[row.name] = row


def make_plan(model: nn.Module, norms: list[Norm], options: SwapOptions) -> Plan:
    """The plan for these norms of the net.

    Raises:
        ValueError: what is wanted cannot be; the message names the module.
    """
    check_unwrapped(model)
    check_groups(norms, options)
    plan, num_dims = Plan(), _num_dims(model)
    plan.rows = {row.name: row for row in bystanders(model, norms, options)}
    flow = Flow(model, {norm.name for norm in find_norms(model)})
    taken = []
    for norm in norms:
        reason = reason_to_stay(norm, options) or _fused_in(model, norm, options)
        if reason is not None:
            plan.rows[norm.name] = stays(norm, reason)
        elif options.kind == "none":
            _remove(plan, model, norm, options, flow)
        elif options.kind != "kernel":
            plan.put(*replacement(norm, options, num_dims))
        elif _join_conv(plan, model, norm, options, flow):
            taken.append(norm)
    _check_something_changes(plan, options)
    if taken:
        _normalize_last_features(plan, model, taken, options, flow)
    check_replaceable(model, norms, plan.edits, flow)
    plan.rows = {name: plan.rows[name] for name, _ in model.named_modules() if name in plan.rows}
    return plan


def _num_dims(model: nn.Module) -> int:
    """Spatial dimensions of most convolutions; without any, 1 for linear layers, otherwise 2."""
    dims = [len(module.kernel_size) for module in model.modules() if isinstance(module, Conv)]
    linear = any(isinstance(module, nn.Linear) for module in model.modules())
    return max(set(dims), key=dims.count, default=1 if linear else 2)


def _fused_in(model: nn.Module, norm: Norm, options: SwapOptions) -> str | None:
    """The reason to leave a norm to a layer that evaluates it in one call with others."""
    parent = model.get_submodule(norm.name.rpartition(".")[0])
    if options.kind in REMOVED and isinstance(parent, nn.TransformerEncoderLayer):
        return "nn.TransformerEncoderLayer reads its weights in evaluation"
    return None


def _check_something_changes(plan: Plan, options: SwapOptions) -> None:
    already = f"{options.kind} already"
    chosen = [row for row in plan.rows.values() if row.note != LEFT_OUT]
    blocked = [row for row in chosen if row.note != already]
    if options.fold and not any(set(FOLDED) <= set(row.kept) for row in plan.rows.values()):
        where = " that a convolution takes up" if options.kind == "kernel" else ""
        raise ValueError(f"fold: no norm is a batch norm with running statistics{where}")
    if blocked and len(blocked) == len(chosen) and not plan.edits:
        name, note = blocked[0].name or "(the model itself)", blocked[0].note
        raise ValueError(f"no norm of the model can become {options.kind!r}; {name}: {note}")


def _source(model: nn.Module, norm: Norm, flow: Flow) -> tuple[str | None, str]:
    """The layer with as many outputs as the norm has channels, which gives to it alone."""
    if norm.form.tokens:
        return None, "its channels come last"
    name, why = flow.source(norm.name)
    if name is None:
        return None, why
    layer = model.get_submodule(name)
    outputs = getattr(layer, "out_channels", getattr(layer, "out_features", None))
    return (name, "") if outputs == norm.channels else (None, "no convolution gives its input")


def _remove(plan: Plan, model: nn.Module, norm: Norm, options: SwapOptions, flow: Flow) -> None:
    """A norm that goes away; if wanted, its running statistics and affine part are folded."""
    pair = scale_and_shift(norm) if options.fold else None
    source, why = _source(model, norm, flow)
    layer = None if source is None else model.get_submodule(source)
    kept: tuple[str, ...] = ()
    if pair is None:
        new = Copy() if layer is None else nn.Identity()
        text = "nothing to fold" if options.fold else ""
    else:
        kept = FOLDED
        why = why if layer is None else why_not_fold(layer)
        if layer is None or source is None or why:
            new, text = standing_scale(norm, *pair), f"stands alone: {why}"
        else:
            plan.edits[source] = folded(layer, *pair)
            new, text = nn.Identity(), f"folded into {source}"
    extras, note = activation(norm)
    became = describe([new, *extras.values()])
    row = Row(norm.name, type(norm.module).__name__, became, kept, join_notes(text, note))
    plan.put(with_extras(norm, new, extras), row)


def _join_conv(plan: Plan, model: nn.Module, norm: Norm, options: SwapOptions, flow: Flow) -> bool:
    """A norm of kind "kernel": taken up by the convolution before it if there is one.

    Returns:
        Whether a convolution took it up.
    """
    source, why = _source(model, norm, flow)
    if source is not None:
        why = why_not_kernel(model.get_submodule(source)) or ""
    if source is None or why:
        new, row = replacement(norm, options, 2)
        plan.put(new, Row(row.name, row.was, row.became, row.kept, join_notes(row.note, why)))
        return False
    conv, pair, text = model.get_submodule(source), None, f"taken up by {source}"
    if options.fold:
        pair = scale_and_shift(norm)
        blocked = "it is no batch norm" if pair is None else why_not_fold(conv)
        text += f", not folded: {blocked}" if blocked else ", scale and shift folded in"
        pair = None if blocked else pair
    if pair is not None:
        conv = folded(conv, *pair)
    assert isinstance(conv, Conv)
    plan.edits[source] = to_kernel(conv, **options.kernel_settings(norm))
    extras, note = activation(norm)
    tensors = ("weight",) if conv.bias is None else ("weight", "bias")
    kept = (*(f"{source}.{tensor}" for tensor in tensors), *(FOLDED if pair is not None else ()))
    became = describe([plan.edits[source], *extras.values()])
    row = Row(norm.name, type(norm.module).__name__, became, kept, join_notes(text, note))
    plan.put(with_extras(norm, nn.Identity(), extras), row)
    return True


def _normalize_last_features(
    plan: Plan, model: nn.Module, taken: list[Norm], options: SwapOptions, flow: Flow
) -> None:
    """A `KernelNorm` for the last features, if a convolution took up the net's last norm.

    It stands before the global pooling, as in the KN nets; where none is found after the last
    norm, in that norm's place, before its activation.
    """
    order = list(flow.order())
    names = {norm.name for norm in find_norms(model)}
    last_name = next((name for name in reversed(order) if name in names), None)
    last = next((norm for norm in taken if norm.name == last_name), None)
    if last is None:
        return
    pool = _global_pool(model, order[len(order) - order[::-1].index(last.name) :])
    if pool is None:
        extras, _ = activation(last)
        new = position_norm(last, options, options.final_dropout_p)
        row = plan.rows[last.name]
        note = join_notes(row.note, "these last features are normalized once more")
        conv = plan.edits[flow.source(last.name)[0] or ""]
        became = describe([conv, new, *extras.values()])
        plan.put(with_extras(last, new, extras), Row(row.name, row.was, became, row.kept, note))
        return
    name, module, num_dims = pool
    new = _features_norm(num_dims, last, options)
    became = describe([new, module])
    row = Row(name, type(module).__name__, became, note="normalizes the last features")
    plan.put(nn.Sequential(OrderedDict(norm=new, pool=module)).train(module.training), row)


def _features_norm(num_dims: int, last: Norm, options: SwapOptions) -> nn.Module:
    if num_dims == last.form.num_dims:
        return position_norm(last, options, options.final_dropout_p)
    return PositionNorm(**options.kernel_settings(last, options.final_dropout_p))


def _global_pool(model: nn.Module, names: list[str]) -> tuple[str, nn.Module, int] | None:
    """The last global pooling among these modules, if no convolution comes after it."""
    for name in reversed(names):
        module = model.get_submodule(name)
        if isinstance(module, Conv):
            return None
        num_dims = GLOBAL_POOLS.get(type(module).__name__)
        if num_dims is not None and getattr(module, "dim", (2, 3)) in ((2, 3), [2, 3]):
            return name, module, num_dims
    return None
