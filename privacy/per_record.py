"""Gradients of every record's loss by itself, from one ordinary backward pass.

Every trainable parameter is handed to the net as a `PerRecord` tensor: one copy for each record,
which share their memory until a gradient reaches them. A function of a copied parameter and of
activations then works on each record as on a batch of one (`torch.func.vmap`), whatever function
it is and wherever the parameter is used: tied weights, tokens, layer scales, standardised weights.
For the functions that most of the time is spent in, `privacy.rules` does the same faster.

An activation is what depends on the net's inputs or on a parameter's copies: while recording, the
inputs require a gradient, and so does all that is computed of them. Everything else is the same
for all records, whatever its shape. A batch holds its records one after the other; the leading
dimension of an activation is a multiple of their number (views of one record, windows of one
image). The probes of `privacy.checks` find nets for which that is not so.
"""

import warnings
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from privacy.contributions import Contribution, Samples

Handler = Callable[..., Any]
ANSWERS = {  # functions of a parameter that answer no tensor
    Tensor.size, Tensor.dim, Tensor.numel, Tensor.stride, Tensor.is_contiguous, Tensor.nelement,
    Tensor.is_floating_point, Tensor.is_complex, Tensor.__len__, Tensor.__repr__, Tensor.__hash__,
    Tensor.type, Tensor.element_size, Tensor.get_device, torch.is_floating_point, torch.is_complex,
}  # fmt: skip
SPREADING = {Tensor.expand, Tensor.expand_as, Tensor.repeat, Tensor.broadcast_to}
ELEMENTWISE = {
    Tensor.add, Tensor.add_, Tensor.sub, Tensor.mul, Tensor.div, torch.add, torch.mul,
}  # fmt: skip


@dataclass
class Tape:
    """The records of one forward pass, and what their gradients are made of."""

    count: int
    """records"""
    rules: dict[Any, Handler]
    thin: bool
    """keep a layer's input and output gradient in place of its records' gradients, where smaller"""
    parameters: set[int] = field(default_factory=set)
    """addresses of the net's own, whose gradients would be those of the whole batch"""
    entered: bool = False
    """whether a parameter has had a part in an activation"""
    copies: dict[str, Tensor] = field(default_factory=dict)
    """(count, *shape) for every parameter by name; leaves of the graph"""
    found: list[tuple[Tensor, Contribution]] = field(default_factory=list)
    """copies, of parameters or of what was computed of them, and a part of their gradient"""

    def is_of_records(self, value: Any) -> bool:
        """Whether it is an activation.

        Raises:
            ValueError: it is one, and does not hold its records one after the other; or a trained
                parameter that came another way than as an attribute of its module.
        """
        if not isinstance(value, Tensor) or isinstance(value, PerRecord) or not value.requires_grad:
            return False
        if value.untyped_storage().data_ptr() in self.parameters:
            raise ValueError("a parameter is kept and used outside of its module's attributes")
        if value.dim() == 0 or value.shape[0] % self.count:
            raise ValueError(
                f"the first dimension of an activation of shape {tuple(value.shape)} does not hold "
                f"its {self.count} records"
            )
        return True

    def activation(self, value: Tensor) -> Tensor:
        """It, without a way back where that would lead to no parameter: first or frozen layers."""
        return value if self.entered else value.detach()

    def add(self, param: "PerRecord", contribution: Contribution) -> None:
        """Note a part of the parameter's gradient; instantiated unless that would be larger."""
        if not (self.thin and contribution.is_thin()):
            contribution = Samples(contribution.samples())
        self.found.append((param.copies, contribution))


class PerRecord(Tensor):
    """A parameter, or what is computed of parameters alone, with a copy for each record."""

    copies: Tensor
    tape: Tape

    @staticmethod
    def of(copies: Tensor, tape: Tape) -> "PerRecord":
        """From (count, *shape); it looks like one copy."""
        self = Tensor._make_subclass(PerRecord, copies[0].detach())
        self.copies, self.tape = copies, tape
        return self

    @property
    def plain(self) -> Tensor:
        """One copy, detached."""
        return self.copies[0].detach()

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        tape = next(v.tape for v in tree_flatten((args, kwargs))[0] if isinstance(v, PerRecord))
        handler = tape.rules.get(func)
        result = NotImplemented
        if handler is not None:
            result = handler(tape, func, *args, **kwargs)
        if result is NotImplemented:
            result = by_records(tape, func, args, kwargs)
        made = [v for v in tree_flatten(result)[0] if isinstance(v, Tensor)]
        tape.entered |= any(v.requires_grad and not isinstance(v, PerRecord) for v in made)
        return result


def by_records(tape: Tape, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The function on every record by itself: activations come out, or a copy for each record."""
    leaves, spec = tree_flatten((args, kwargs))
    if func in ANSWERS or getattr(func, "__name__", "") == "__get__":
        plain = [leaf.plain if isinstance(leaf, PerRecord) else leaf for leaf in leaves]
        args, kwargs = tree_unflatten(plain, spec)
        result = func(*args, **kwargs)
        if func in ANSWERS or not isinstance(result, Tensor):
            return result
    mapped = {
        place: leaf.copies
        if isinstance(leaf, PerRecord)
        else apart(tape.activation(leaf), tape.count)
        for place, leaf in enumerate(leaves)
        if isinstance(leaf, PerRecord) or tape.is_of_records(leaf)
    }

    def one(values: list[Tensor]) -> Any:
        own = dict(zip(mapped, values, strict=True))
        args, kwargs = tree_unflatten([own.get(i, leaf) for i, leaf in enumerate(leaves)], spec)
        return func(*args, **kwargs)

    with warnings.catch_warnings():  # a function that is slow so is right all the same
        warnings.filterwarnings("ignore", "There is a performance drop")
        result = torch.vmap(one, randomness="different")(list(mapped.values()))
    if all(isinstance(leaves[place], PerRecord) for place in mapped):
        return tree_map(lambda copies: PerRecord.of(copies, tape), result)
    return tree_map(lambda value: value.flatten(0, 1), result)


def traced(value: Any) -> Any:
    """An input of the net, of which everything that depends on it will require a gradient."""
    if not isinstance(value, Tensor):
        return value
    if not value.is_floating_point():
        raise ValueError(f"what depends on an input of {value.dtype} cannot be told from the rest")
    return value.detach().requires_grad_().clone()  # no leaf, which could not be changed in place


def apart(value: Tensor, count: int) -> Tensor:
    """(count * k, ...) -> (count, k, ...)"""
    return value.unflatten(0, (count, -1))


def spread(tape: Tape, func: Any, param: PerRecord, *sizes: Any, **options: Any) -> Any:
    """A token that is expanded to the batch: an activation, every record with its own copy."""
    shape = func(param.plain, *sizes, **options).shape
    lead = shape[: len(shape) - param.copies.dim() + 2]  # dimensions that are new, and the first
    fits = shape[0] % tape.count == 0 and lead.numel() == shape[0]
    is_one = param.copies.dim() < 2 or param.copies.shape[1] == 1
    if not (fits and is_one and len(lead) in (1, 2)):
        return NotImplemented
    copies = param.copies if len(lead) == 1 else param.copies.unsqueeze(1)
    if func is Tensor.repeat and shape[1:] != copies.shape[2:]:
        return NotImplemented
    copies = copies.expand(-1, shape[0] // tape.count, *shape[1:])
    return copies.flatten(0, 1).clone()  # memory of its own: it is a parameter no more


def elementwise(tape: Tape, func: Any, a: Any, b: Any, **options: Any) -> Any:
    """Activations with what parameters gave for a whole batch: every record with its own part.

    Such as positions that are computed for as many images as there are.
    """
    param, x = (a, b) if isinstance(a, PerRecord) else (b, a)
    if not (isinstance(param, PerRecord) and tape.is_of_records(x)):
        return NotImplemented
    if param.dim() != x.dim() or param.shape[0] != x.shape[0]:
        return NotImplemented
    parts = param.copies.unflatten(1, (tape.count, -1))  # (N, N, views, ...)
    own = parts.diagonal().movedim(-1, 0).flatten(0, 1)
    return func(*(own if value is param else value for value in (a, b)), **options)


class Recorder(nn.Module):
    """A net whose forward passes are recorded on a tape while there is one.

    Args:
        net: any module; frozen parameters stay as they are.
        rules: of `privacy.rules`, for functions; empty: everything record by record.
        thin: see `Tape.thin`.
    """

    def __init__(self, net: nn.Module, rules: dict[Any, Handler], *, thin: bool = False):
        super().__init__()
        self.net, self.rules, self.thin = net, rules, thin
        self.tape: Tape | None = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the net's; while recording, inputs are floating point, records first.

        Raises:
            ValueError: an input is a tensor of whole numbers.
        """
        if self.tape is None:
            return self.net(*args, **kwargs)
        args, kwargs = tree_map(traced, (args, kwargs))
        copies = self.tape.copies.items()
        records = {name: PerRecord.of(values, self.tape) for name, values in copies}
        own: dict[str, Any] = {place: records[name] for place, name in places(self.net).items()}
        return functional_call(self.net, own, args, kwargs, tie_weights=False)

    @contextmanager
    def recording(self, count: int):
        """Around forward and backward pass of `count` records; yields the tape."""
        known = dict.fromkeys(SPREADING, spread) | dict.fromkeys(ELEMENTWISE, elementwise)
        tape = Tape(count, self.rules | known, self.thin)
        for name, parameter in trainable(self.net):
            tape.parameters.add(parameter.untyped_storage().data_ptr())
            copies = parameter.detach().expand(count, *parameter.shape)
            tape.copies[name] = copies.requires_grad_()
        self.tape = tape
        try:
            yield tape
        finally:
            self.tape = None

    def gradients(self, tape: Tape) -> dict[str, Contribution]:
        """Every parameter's gradients after the backward pass of a sum of the records' losses."""
        owners = {id(copies): name for name, copies in tape.copies.items()}
        parts: dict[str, list[Contribution]] = {name: [] for name in tape.copies}
        derived = [(c, part) for c, part in tape.found if id(c) not in owners]
        for copies, part in tape.found:
            if id(copies) in owners:
                parts[owners[id(copies)]].append(part)
        if derived:
            torch.autograd.backward(
                [copies for copies, _ in derived],
                [part.samples().to(copies.dtype) for copies, part in derived],
            )
        for name, copies in tape.copies.items():
            if copies.grad is not None:
                parts[name].append(Samples(copies.grad))
        return {name: together(parts[name], copies) for name, copies in tape.copies.items()}


def together(parts: list[Contribution], copies: Tensor) -> Contribution:
    """One contribution of several: a parameter that is used twice has their sum."""
    if len(parts) == 1:
        return parts[0]
    if not parts:  # it had no part in the loss
        return Samples(copies.new_zeros(()).expand(copies.shape))
    return Samples(torch.stack([part.samples() for part in parts]).sum(0))


def places(net: nn.Module) -> dict[str, str]:
    """Every place of a trained parameter, each once however many names its module has.

    `functional_call` does not put parameters back in a module that it visits under two names.

    Returns:
        a name of the place -> the name of the parameter in `trainable`.
    """
    names = {id(parameter): name for name, parameter in trainable(net)}
    return {
        place: names[id(parameter)]
        for prefix, module in net.named_modules()
        for place, parameter in module.named_parameters(prefix, False, False)
        if id(parameter) in names
    }


def trainable(net: nn.Module) -> Iterable[tuple[str, nn.Parameter]]:
    """Names and parameters that are trained; tied ones once."""
    return [(name, p) for name, p in net.named_parameters() if p.requires_grad]
