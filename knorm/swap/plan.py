"""What will stand where: all of it is made before anything is replaced."""

from collections import OrderedDict
from dataclasses import dataclass, field, replace

from torch import nn

from knorm.swap.checks import check_replaceable, check_unwrapped
from knorm.swap.convs import Conv, folded, to_kernel, why_not_fold, why_not_kernel
from knorm.swap.flow import ELSEWHERE
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
from knorm.swap.sources import Sources

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
    plan = Plan(rows={row.name: row for row in bystanders(model, norms, options)})
    sources, taken = Sources(model), []
    for norm in norms:
        reason = reason_to_stay(norm, options) or _fused_in(model, norm, options)
        if reason is not None:
            plan.rows[norm.name] = stays(norm, reason)
        elif options.kind == "none":
            _remove(plan, norm, options, sources)
        elif options.kind != "kernel":
            plan.put(*replacement(norm, options, sources.num_dims(norm)))
        elif _join_conv(plan, norm, options, sources):
            taken.append(norm)
    _check_something_changes(plan, options)
    if taken:
        _normalize_last_features(plan, taken, options, sources)
    check_replaceable(model, norms, plan.edits, sources)
    plan.rows = {name: plan.rows[name] for name, _ in model.named_modules() if name in plan.rows}
    return plan


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


def _remove(plan: Plan, norm: Norm, options: SwapOptions, sources: Sources) -> None:
    """A norm that goes away; if wanted, its running statistics and affine part are folded."""
    pair = scale_and_shift(norm) if options.fold else None
    source, why = sources.layer_in_both_modes(norm)
    layer = None if source is None else sources.model.get_submodule(source)
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


def _join_conv(plan: Plan, norm: Norm, options: SwapOptions, sources: Sources) -> bool:
    """A norm of kind "kernel": taken up by the convolution before it if there is one.

    Returns:
        Whether a convolution took it up.
    """
    source, why = sources.layer(norm)
    if source is not None:
        why = why_not_kernel(sources.model.get_submodule(source)) or ""
    if source is None or why:
        new, row = replacement(norm, options, 2)
        plan.put(new, Row(row.name, row.was, row.became, row.kept, join_notes(row.note, why)))
        return False
    conv, pair, text = sources.model.get_submodule(source), None, f"taken up by {source}"
    if options.fold:
        pair = scale_and_shift(norm)
        _, differs = sources.layer_in_both_modes(norm)
        blocked = "it is no batch norm" if pair is None else why_not_fold(conv) or differs
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
    plan: Plan, taken: list[Norm], options: SwapOptions, sources: Sources
) -> None:
    """A `KernelNorm` for the last features, if a convolution took up the net's last norm.

    It stands before the global pooling, as in the KN nets; where none is found after the last
    norm, in that norm's place, before its activation.
    """
    order = list(sources.flow.order())
    names = {norm.name for norm in find_norms(sources.model)}
    last_name = next((name for name in reversed(order) if name in names), None)
    last = next((norm for norm in taken if norm.name == last_name), None)
    if last is None:
        return
    pool = _global_pool(sources, order[len(order) - order[::-1].index(last.name) :])
    if pool is not None:
        _normalize_before(*pool, plan, last, options, sources)
        return
    extras, _ = activation(last)
    new = position_norm(last, options, options.final_dropout_p)
    row = plan.rows[last.name]
    became = describe([plan.edits[sources.layer(last)[0] or ""], new, *extras.values()])
    note = join_notes(row.note, "these last features are normalized once more")
    plan.put(with_extras(last, new, extras), replace(row, became=became, note=note))


def _normalize_before(
    pool: str, num_dims: int, plan: Plan, last: Norm, options: SwapOptions, sources: Sources
) -> None:
    """A `KernelNorm` behind the layer that gives the pooling its input, or beside the pooling.

    Behind is better, for a net of timm's makes a new pooling along with a new classifier; but a
    layer with parameters would change their names.
    """
    if num_dims == last.form.num_dims:
        new = position_norm(last, options, options.final_dropout_p)
    else:
        new = PositionNorm(**options.kernel_settings(last, options.final_dropout_p))
    note = "normalizes the last features"
    name, _ = sources.flow.source(pool)
    giver = None if name is None else plan.edits.get(name, sources.model.get_submodule(name))
    if name is None or giver is None or next(giver.parameters(), None) is not None:
        name, giver = pool, sources.model.get_submodule(pool)
        note += " (a pooling in its place would not)"
        parts = {"norm": new, "pool": giver}
    else:
        parts = {"norm": new} if isinstance(giver, nn.Identity) else {"layer": giver, "norm": new}
    whole = nn.Sequential(OrderedDict(parts)).train(giver.training)
    row = plan.rows.get(name)
    if row is None:
        was, became = type(giver).__name__, describe(parts.values())
        row = Row(name, was, became, note=note, added=True)
    else:
        became = f"{row.became} + {type(new).__name__}"
        row = replace(row, became=became, note=join_notes(row.note, note))
    plan.put(whole, row)


def _global_pool(sources: Sources, names: list[str]) -> tuple[str, int] | None:
    """The last global pooling among these modules, and its spatial dimensions, if no convolution
    comes after it and it alone gets its input, which an attention over channels does not."""
    for name in reversed(names):
        module = sources.model.get_submodule(name)
        if isinstance(module, Conv):
            return None
        num_dims = GLOBAL_POOLS.get(type(module).__name__)
        if num_dims is None or getattr(module, "dim", (2, 3)) not in ((2, 3), [2, 3]):
            continue
        return None if sources.flow.source(name)[1] == ELSEWHERE else (name, num_dims)
    return None
