"""What a net and a run cost: parameters, multiplications, memory.

MACs are multiply-accumulates; each is two floating-point operations (FLOPs = 2 x MACs). Papers
count them in two ways: `count_macs`, and `count_mult_adds` where they took torchinfo's.
"""

import math
import resource
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count, register_flop_formula

from knorm import KernelNorm1d, KernelNorm2d, KernelNorm3d, KNConv1d, KNConv2d, KNConv3d
from knorm.kan.branches import BasisBranch, WaveletBranch

KN_CONVS = (KNConv1d, KNConv2d, KNConv3d)
CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
CONVS += (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
KAN_BRANCHES = (BasisBranch, WaveletBranch)
KERNEL_NORMS = (KernelNorm1d, KernelNorm2d, KernelNorm3d)


@register_flop_formula(torch.ops.knorm.kn_conv)
def _kn_conv_flops(x_shape: list[int], w_shape: list[int], *_: Any, out_shape: Any) -> int:
    """Of its convolution; operators of ours are not looked into."""
    return conv_flop_count(x_shape, w_shape, out_shape[0])


class Macs(NamedTuple):
    """Multiply-accumulates of one forward pass in evaluation mode."""

    products: int
    """of convolutions and matrix products, which is what papers count"""
    kernel_norm: int
    """what kernel normalization adds to them, see `kernel_norm_macs`"""


class Stage(NamedTuple):
    """A part of a net in one forward pass."""

    name: str
    output: tuple[int, ...]
    """shape without the samples"""
    parameters: int
    macs: Macs


def count_parameters(net: nn.Module) -> int:
    """Trainable parameters."""
    return sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)


def weight_bytes(net: nn.Module) -> int:
    """Bytes of all parameters and buffers that a checkpoint of the net holds."""
    return sum(tensor.nbytes for tensor in net.state_dict().values())


def count_macs(net: nn.Module, example: Tensor) -> int:
    """Multiply-accumulates of one forward pass in evaluation mode.

    Convolutions and matrix products are counted; element-wise work, pooling and norms are not.
    What kernel normalization does besides its convolution is in `macs_by_module`.
    """
    return macs_by_module(net, example)[""].products


def count_mult_adds(net: nn.Module, example: Tensor) -> int:
    """What torchinfo calls the total mult-adds of one forward pass in evaluation mode.

    Of a convolution all weights and biases at every position of the output, of any other layer all
    parameters once a sample. Papers that took this number often mean a whole batch by it. The
    branches of KAN convolutions, which torchinfo does not know, count as convolutions.
    """
    total = 0

    def note(name: str, module: nn.Module, x: Tensor, out: Tensor) -> None:
        nonlocal total
        out = out[0] if isinstance(out, tuple) else out
        everywhere = isinstance(module, CONVS + KAN_BRANCHES)
        positions = math.prod(out.shape[2:]) if everywhere else 1
        total += sum(p.numel() for p in module.parameters(recurse=False)) * len(out) * positions

    counted = {
        name: module
        for name, module in net.named_modules()
        if not [*module.children()] or isinstance(module, KAN_BRANCHES)
    }
    with _watched(counted, note), evaluating(net, example):
        net(example)
    return total


def macs_by_module(net: nn.Module, example: Tensor) -> dict[str, Macs]:
    """Multiply-accumulates of every module that has any, by dotted name; "" is the net.

    `example` is (N, C, *space), also on the meta device, which computes nothing.
    """
    added: Counter[str] = Counter()

    def note(name: str, module: nn.Module, x: Tensor, out: Tensor) -> None:
        for parent in _with_parents(name):
            added[parent] += kernel_norm_macs(module, x, out)

    kernel_layers = {
        name: module
        for name, module in net.named_modules()
        if isinstance(module, KN_CONVS + KERNEL_NORMS)
    }
    with _watched(kernel_layers, note):
        flops = _flops(net, example)
    products = Counter({name: sum(ops.values()) // 2 for name, ops in flops.items()})
    for name in kernel_layers:  # the product with the weights' sums is part of the normalization
        ops = flops.get(name, {})
        sums = sum(count for op, count in ops.items() if "conv" not in str(op)) // 2
        for parent in _with_parents(name):
            products[parent] -= sums
    return {name: Macs(products[name], added[name]) for name in {"", *products, *added}}


def kernel_norm_macs(module: nn.Module, x: Tensor, out: Tensor) -> int:
    """What a kernel-normalized layer does in evaluation besides its convolution, in MACs.

    For each element of the input 2 (mean and variance of a pixel's channels), and 1 more to centre
    it in a `KNConv`. For each kernel element of each window 3 (the window's mean, its variance
    between and within pixels). For each element of the output 1 (a `KernelNorm` scales), or K + 2
    (a `KNConv` adds its levels, a product with its weights' K sums, scales and shifts).
    """
    kernel_size = module.kernel_size
    assert isinstance(kernel_size, tuple)
    kernel = math.prod(kernel_size)
    if isinstance(module, KN_CONVS):
        groups = module.groups if module.group_stats else 1
        windows = groups * out.numel() // module.out_channels
        return 3 * x.numel() + 3 * kernel * windows + (kernel + 2) * out.numel()
    channels_dim = -1 - len(kernel_size)
    elements = out.numel() // x.shape[channels_dim]  # of all windows, one channel
    return 2 * x.numel() + 3 * elements + out.numel()


def stages(net: nn.Module, example: Tensor) -> list[Stage]:
    """The parts of a net in the order in which they run: its children, `features` by its own."""
    parts: dict[str, nn.Module] = {}
    for name, child in net.named_children():
        inner = child.named_children() if name == "features" else ()
        parts |= {f"{name}.{part}": module for part, module in inner} or {name: child}
    shapes: dict[str, tuple[int, ...]] = {}

    def note(name: str, module: nn.Module, x: Tensor, out: Tensor) -> None:
        shapes[name] = tuple(out.shape[1:])

    with _watched(parts, note):
        macs = macs_by_module(net, example)
    nothing = Macs(0, 0)
    return [
        Stage(name, shape, count_parameters(parts[name]), macs.get(name, nothing))
        for name, shape in shapes.items()
    ]


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that tensors took on a GPU, or the process took of the machine's memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget_peak_memory(device: torch.device) -> None:
    """From now on `peak_memory` is that of what follows, where the system can tell (Linux, CUDA).

    What the process holds at this moment, such as data and torch itself, still counts.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak of resident memory, proc(5)


@contextmanager
def _watched(
    modules: Mapping[str, nn.Module], note: Callable[[str, nn.Module, Tensor, Tensor], None]
) -> Iterator[None]:
    """Inside, `note` gets every module that runs: its name, itself, its input and its output."""

    def hook_of(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda module, args, out: note(name, module, args[0], out)

    hooks = [module.register_forward_hook(hook_of(name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def evaluating(net: nn.Module, example: Tensor) -> Iterator[None]:
    """Inside, the net is in evaluation mode, without gradients; random numbers stay as they are."""
    were_training = [module for module in net.modules() if module.training]
    net.eval()
    devices = [example.device] if example.is_cuda else []
    try:
        with torch.no_grad(), torch.random.fork_rng(devices):
            yield
    finally:
        for module in were_training:
            module.training = True


def _flops(net: nn.Module, example: Tensor) -> dict[str, dict[Any, int]]:
    """Operation -> floating-point operations, for every module by its dotted name."""
    counter = FlopCounterMode(display=False)
    with evaluating(net, example), counter:
        net(example)
    root = type(net).__name__
    counts = counter.get_flop_counts()
    names = {name: name.removeprefix(root).removeprefix(".") for name in counts}
    return {names[name]: ops for name, ops in counts.items() if name != "Global"}


def _with_parents(name: str) -> Iterator[str]:
    """a.b -> a.b, a and the net itself."""
    while name:
        yield name
        name = name.rpartition(".")[0]
    yield ""
