"""Whether a net leaves its classifier anything to tell images apart."""

from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from knorm.training.cost import evaluating

NOTHING = 1e-12  # of the size of the map that is pooled; float64 rounds at 1e-16


def features_are_constant(net: nn.Module, inputs: Tensor) -> bool:
    """Whether the last linear layer of the net gets the same for all of these inputs.

    inputs (N, C, H, W), two or more that differ. The net is evaluated once, in float64: in float32
    the features of an ordinary deep net may be alike up to rounding. Its weights, modes, buffers
    and the random state stay as they are. False for a net that no linear layer ends, or that takes
    no float64.
    """
    maps: list[tuple[int, Tensor]] = []  # elements of a sample, size of each
    found: list[tuple[Tensor, Tensor]] = []  # input of each linear layer, size of what it is of

    def note(module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        if isinstance(module, nn.Linear) and args[0].dim() == 2:
            larger = [size for elements, size in maps if elements > args[0].shape[1]]
            found.append((args[0], larger[-1] if larger else args[0].abs().max()))
        elif isinstance(out, Tensor) and out.dim() > 2:
            maps.append((out[0].numel(), out.square().mean().sqrt()))

    tensors = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    precise = {n: t.double() if t.is_floating_point() else t for n, t in tensors.items()}
    hooks = [m.register_forward_hook(note) for m in net.modules() if not [*m.children()]]
    try:
        with evaluating(net, inputs):
            functional_call(net, precise, (inputs.double(),))
    except (RuntimeError, TypeError):  # a dtype that is written into the net, or a device without
        return False
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        return False
    features, size = found[-1]
    return bool((features - features[:1]).abs().max() <= NOTHING * size)
