"""Which module gives its output to which: the net's data flow, without an input.

Every module's forward is traced by `torch.fx` with its children as black boxes. A forward that
cannot be traced (it asks for values or sizes) hides its own calls only, not those of its children.
"""

import copy
import inspect
import warnings
from collections import Counter
from collections.abc import Iterator, Set
from itertools import chain
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils import parametrize

Node = fx.Node


class _Shallow(fx.Tracer):
    """Traces one forward; all modules within are black boxes. Notes the tensors that it reads."""

    def __init__(self):
        super().__init__()
        self.read: set[int] = set()

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if isinstance(attr_val, torch.Tensor):
            self.read.add(id(attr_val))
        return super().getattr(attr, attr_val, parameter_proxy_cache)


class Flow:
    """The data flow of a net, by the first names of its modules.

    Names are told apart by module: one that stands at two places has one name and is used twice.
    `leaves` are names of modules whose children are no concern. The flow is that of what learns,
    or with `training=False` that of evaluation, whatever the mode of the model.
    """

    def __init__(self, model: nn.Module, leaves: Set[str] = frozenset(), *, training: bool = True):
        skeleton = _skeleton(model).train(training)
        self._names = {id(module): name for name, module in skeleton.named_modules()}
        self._modules = dict(skeleton.named_modules())
        self._graphs: dict[str, fx.Graph | None] = {}
        self._calls: dict[str, list[tuple[str, Node]]] = {}
        self._uses: Counter[str] = Counter()
        self.read: dict[str, set[str]] = {}
        """tensors of a module that another module's forward takes for itself"""
        self._leaves = leaves
        self._tensors = _tensors(skeleton)
        self._follow("")

    def _follow(self, name: str) -> None:
        """Trace a module that is called, then those that it calls."""
        module = self._modules[name]
        known = name in self._graphs or name in self._leaves
        if known or parametrize.is_parametrized(module) or not _has_children(module):
            return
        self._graphs[name], read = _trace(module)
        self._note_read(name, read)
        for node in self._calls_in(name):
            child = self._called(name, node)
            self._calls.setdefault(child, []).append((name, node))
            self._uses[child] += 1
            self._follow(child)
        if self._graphs[name] is None:
            for child in module.children():
                self._follow(self._names[id(child)])

    def _note_read(self, reader: str, read: Set[int]) -> None:
        for owner, tensor in (self._tensors[one] for one in read if one in self._tensors):
            if owner != reader:
                self._uses[owner] += 1
                self.read.setdefault(owner, set()).add(tensor)

    def _calls_in(self, name: str) -> Iterator[Node]:
        graph = self._graphs[name]
        if graph is not None:
            yield from (node for node in graph.nodes if node.op == "call_module")

    def _called(self, owner: str, node: Node) -> str:
        return self._names[id(self._modules[owner].get_submodule(str(node.target)))]

    def source(self, name: str) -> tuple[str | None, str]:
        """The module whose output goes to `name` and nowhere else; or None, and the reason."""
        if self._uses[name] != 1:
            hidden = self._uses[name] == 0
            return None, self._why_hidden(name) if hidden else "it is used more than once"
        owner, node = self._calls[name][0] if name in self._calls else ("", None)
        while node is not None:
            argument = node.args[0] if node.args else None
            found = self._step(owner, argument)
            if isinstance(found, str):
                return None, found
            owner, node = found
            if node.op == "call_module":
                giver = self._called(owner, node)
                if self._uses[giver] != 1:
                    return None, f"{giver} is used more than once"
                if self._graphs.get(giver, fx.Graph) is None:
                    return None, f"what {giver} gives cannot be traced"
                if giver not in self._graphs:
                    if not isinstance(self._modules[giver], nn.Identity):
                        return giver, ""
                    continue
            elif node.op != "output":
                return None, "its input is no convolution's output"
        return None, "its parent reaches into it"

    def _step(self, owner: str, argument: object) -> tuple[str, Node] | str:
        """The call that makes `argument`, within the module that it comes from; or why not."""
        if not isinstance(argument, Node):
            return "its input is no convolution's output"
        if sum(not _asks_for_facts(user) for user in argument.users) != 1:
            return ELSEWHERE
        if argument.op == "placeholder":
            if self._uses[owner] != 1 or owner not in self._calls:
                return "its input comes from outside of its parent"
            if self._modules[owner]._forward_pre_hooks:
                return f"{owner} has hooks"
            caller, call = self._calls[owner][0]
            if len(call.args) != 1 or call.kwargs:
                return "its parent takes several inputs"
            return self._step(caller, call.args[0])
        if argument.op == "call_module":
            giver = self._called(owner, argument)
            graph = self._graphs.get(giver)
            if graph is not None and self._uses[giver] == 1:
                if self._modules[giver]._forward_hooks:
                    return f"{giver} has hooks"
                returned = next(node for node in graph.nodes if node.op == "output")
                return self._step(giver, returned.args[0])
        return owner, argument

    def _why_hidden(self, name: str) -> str:
        parent = name.rpartition(".")[0]
        if self._graphs.get(parent, fx.Graph) is None:
            return f"the order of calls in {parent or 'the model'} cannot be traced"
        return "its parent does not call it"

    def order(self, name: str = "") -> Iterator[str]:
        """The modules without children, and the leaves, in the order of their calls.

        Within a module that cannot be traced, in the order of their definition.
        """
        if name not in self._graphs:
            yield name
            return
        if self._graphs[name] is not None:
            called = [self._called(name, node) for node in self._calls_in(name)]
        else:
            children = self._modules[name].children()
            called = [self._names[id(child)] for child in children]
        for child in called:
            yield from self.order(child)


ELSEWHERE = "its input goes elsewhere too"
UNCOPYABLE = (TypeError, RuntimeError)  # raised for a lock, say, or a tensor with its history
FACTS = ("shape", "ndim", "dtype", "device", "size", "dim")


def _asks_for_facts(node: Node) -> bool:
    """Whether a call takes no values of its argument, only its shape or the like."""
    if node.op == "call_method":
        return node.target in FACTS
    return node.op == "call_function" and node.target is getattr and node.args[1] in FACTS


def copied(model: nn.Module, *shared: torch.Tensor) -> nn.Module:
    """A copy that shares these tensors alone.

    Raises:
        ValueError: something in the model cannot be copied.
    """
    try:
        return copy.deepcopy(model, {id(tensor): tensor for tensor in shared})
    except UNCOPYABLE as error:
        *_, (name, module) = [named for named in model.named_modules() if not _copies(named[1])]
        what = f"{name or 'the model'} ({type(module).__name__})"
        raise ValueError(f"{what} cannot be copied: {error}") from error


def _copies(module: nn.Module) -> bool:
    try:
        copy.deepcopy(module)
    except UNCOPYABLE:
        return False
    return True


def _skeleton(model: nn.Module) -> nn.Module:
    """A copy that shares the parameters: tracing may leave its traces in attributes and buffers."""
    return copied(model, *model.parameters())


def _has_children(module: nn.Module) -> bool:
    return next(module.children(), None) is not None


def _tensors(model: nn.Module) -> dict[int, tuple[str, str]]:
    """The first module that holds it, and its name there, for each parameter and buffer."""
    named = chain(model.named_parameters(), model.named_buffers())
    places = ((tensor, name.rpartition(".")) for name, tensor in named)
    return {id(tensor): (owner, own) for tensor, (owner, _, own) in places}


def _trace(module: nn.Module) -> tuple[fx.Graph | None, set[int]]:
    """The graph of its forward, arguments that have defaults left at them; the tensors read."""
    tracer = _Shallow()
    parameters = inspect.signature(module.forward).parameters.values()
    given = {p.name: p.default for p in parameters if p.default is not p.empty}
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            return tracer.trace(module, concrete_args=given), tracer.read
        except Exception:  # whatever a forward does to a stand-in for its input
            return None, tracer.read
