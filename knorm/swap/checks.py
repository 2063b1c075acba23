"""What a swap would break without a word is refused, by the name of the module."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from types import MethodType

from torch import nn
from torch.nn.utils import parametrize

from knorm.swap.forms import HOOKS, Norm
from knorm.swap.sources import Sources

LEAVE_OUT = "leave it out with modules="
WRAPPERS = {"DistributedDataParallel", "FullyShardedDataParallel", "FSDPModule"}


def check_unwrapped(model: nn.Module) -> None:
    """No wrapper keeps to the parameters that the net had when it was wrapped.

    Raises:
        ValueError: one does.
    """
    for name, module in model.named_modules():
        for what in WRAPPERS & {base.__name__ for base in type(module).__mro__}:
            raise ValueError(
                f"{name or 'the model itself'}: swap the net before {what} takes it, which would "
                "go on with the parameters that there were"
            )


def check_replaceable(
    model: nn.Module, norms: Iterable[Norm], edits: Mapping[str, nn.Module], sources: Sources
) -> None:
    """Nothing hangs on the modules that go away but what their successors take over.

    Raises:
        ValueError: something does.
    """
    replaced = [norm for norm in norms if norm.name in edits]
    for norm in replaced:
        what = type(norm.module).__name__
        if any(getattr(norm.module, hooks) for hooks in HOOKS):
            raise ValueError(f"{norm.place}: the {what} has hooks; remove them or {LEAVE_OUT}")
        if parametrize.is_parametrized(norm.module):
            raise ValueError(f"{norm.place}: the {what} is parametrized; {LEAVE_OUT}")
        lost = sources.read(norm) - set(dir(edits[norm.name]))
        if lost:
            raise ValueError(
                f"{norm.place}: another module's forward reads its {', '.join(sorted(lost))}, "
                f"which its successor would not have; {LEAVE_OUT}"
            )
    _check_only_child(model, {id(model.get_submodule(name)): name for name in edits})


def _check_only_child(model: nn.Module, names: Mapping[int, str]) -> None:
    """No module holds another of these in a container, a bound method or an attribute of Python
    alone."""
    seen = {id(module) for module in model.modules()}  # these are asked in turn
    for owner, module in model.named_modules():
        for attribute, value in vars(module).items():
            if attribute == "_modules":
                continue
            for name in (names[id(one)] for one in _held(value, seen) if id(one) in names):
                place = f"{owner}.{attribute}" if owner else attribute
                raise ValueError(
                    f"{name or 'the model itself'}: {place} holds it where it cannot be replaced "
                    f"(use nn.ModuleList or nn.ModuleDict), or {LEAVE_OUT}"
                )


def _held(value: object, seen: set[int]) -> Iterator[object]:
    """The value and all that it holds, whatever is not `seen` once."""
    yield value
    if id(value) in seen:
        return
    seen.add(id(value))
    for part in _parts(value):
        yield from _held(part, seen)


def _parts(value: object) -> Iterable[object]:
    if isinstance(value, Mapping):
        return value.values()
    if isinstance(value, list | tuple | set | frozenset | deque):
        return value
    if isinstance(value, MethodType):
        return (value.__self__,)
    if isinstance(value, partial):
        return (value.func, *value.args, *value.keywords.values())
    return vars(value).values() if isinstance(value, nn.Module) else ()
