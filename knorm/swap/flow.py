"""Which module gives its output to which: the net's data flow, without an input.

Every module's forward is traced by `torch.fx` with its children as black boxes. A forward that
cannot be traced (it asks for values or sizes) hides its own calls only, not those of its children.
"""

import copy
import inspect
import warnings
from collections import Counter
from collections.abc import Iterator, Set

import torch
from torch import fx, nn

Node = fx.Node


class _Shallow(fx.Tracer):
    """Traces one forward; all modules within are black boxes."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


class Flow:
    """The data flow of a net, by the first names of its modules.

    Names are told apart by module: one that stands at two places has one name and is used twice.
    `leaves` are names of modules whose children are no concern.
    """

    def __init__(self, model: nn.Module, leaves: Set[str] = frozenset()):
        skeleton = _skeleton(model)
        self._names = {id(module): name for name, module in skeleton.named_modules()}
        self._modules = dict(skeleton.named_modules())
        self._graphs: dict[str, fx.Graph | None] = {}
        self._calls: dict[str, list[tuple[str, Node]]] = {}
        self._uses: Counter[str] = Counter()
        self.read: dict[str, set[str]] = {}
        """tensors of a module that another module's forward takes for itself"""
        for name, module in self._modules.items():
            if name not in leaves and next(module.children(), None) is not None:
                self._graphs[name] = graph = _trace(module)
                self._count(name, graph)

    def _count(self, owner: str, graph: fx.Graph | None) -> None:
        for node in graph.nodes if graph is not None else ():
            if node.op == "call_module":
                name = self._called(owner, node)
                self._calls.setdefault(name, []).append((owner, node))
                self._uses[name] += 1
            elif node.op == "get_attr" and "." in node.target:
                path, _, tensor = node.target.rpartition(".")
                name = self._name(owner, path)
                self._uses[name] += 1
                self.read.setdefault(name, set()).add(tensor)

    def _name(self, owner: str, path: str) -> str:
        return self._names[id(self._modules[owner].get_submodule(path))]

    def _called(self, owner: str, node: Node) -> str:
        return self._name(owner, str(node.target))

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
            return "its input goes elsewhere too"
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
        if parent in self._graphs and self._graphs[parent] is not None:
            return "its parent does not call it"
        what = parent or "the model"
        return f"the order of calls in {what} cannot be traced"

    def order(self, name: str = "") -> Iterator[str]:
        """The modules without children, and the leaves, in the order of their calls.

        Within a module that cannot be traced, in the order of their definition.
        """
        if name not in self._graphs:
            yield name
            return
        graph = self._graphs[name]
        if graph is not None:
            called = [self._called(name, n) for n in graph.nodes if n.op == "call_module"]
        else:
            children = self._modules[name].children()
            called = [self._names[id(child)] for child in children]
        for child in called:
            yield from self.order(child)


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
    except (TypeError, RuntimeError) as error:  # a lock, say, or a tensor with its history
        raise ValueError(f"the model ({type(model).__name__}) cannot be copied: {error}") from error


def _skeleton(model: nn.Module) -> nn.Module:
    """A copy that shares the parameters: tracing may leave its traces in attributes and buffers.

    In training, so that the flow does not depend on the mode and is that of what learns.
    """
    return copied(model, *model.parameters()).train()


def _trace(module: nn.Module) -> fx.Graph | None:
    """The graph of its forward, arguments that have defaults left at them."""
    parameters = inspect.signature(module.forward).parameters.values()
    given = {p.name: p.default for p in parameters if p.default is not p.empty}
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            return _Shallow().trace(module, concrete_args=given)
        except Exception:  # whatever a forward does to a stand-in for its input
            return None
