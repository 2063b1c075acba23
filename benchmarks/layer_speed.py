"""What kernel normalization costs: every convolution of its nets, and the nets, over batch norm's.

    python -m benchmarks.layer_speed --out docs/results/layer-speed              # CIFAR's sizes
    python -m benchmarks.layer_speed --size imagenet --out docs/results/layer-speed-imagenet
    python -m benchmarks.layer_speed --size cityscapes --out docs/results/layer-speed-cityscapes
    python -m benchmarks.layer_speed --device cuda --dtype bfloat16 --channels_last true

For every shape of a kernel-normalized convolution in the nets: the convolution alone, with batch,
group and layer norm, ours, and naive code that unfolds windows as the formula stands, which is
first checked to give the same. A pass forward is without gradients; a step is forward and
backward, gradients of input and weight. Then the whole nets, eager and compiled. Variants take
turns, one run each a round; a ratio is the median over the rounds of the ratio within a round.
Saved memory is the bytes that autograd keeps, parameters excepted, each storage counted once; the
peak is that of all tensors alive in a step beyond those before it.
"""

import platform
import shlex
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse import auto_cli
from torch import Tensor, nn

from benchmarks.layer_case import (
    BASE,
    OURS,
    SIZES,
    VARIANTS,
    Shape,
    Size,
    check_naive,
    fits,
    shapes_of,
)
from benchmarks.layer_page import draw, render
from benchmarks.report import publish
from knorm import create_model
from knorm.training.profile import in_turns, kept_bytes, over, peak_bytes

Row = dict[str, Any]
Work = Callable[[], object]
NET_NORMS = {BASE: "batch", "conv + group": "group", OURS: "kernel"}
NUM_CLASSES = 10


def step_of(net: nn.Module, x: Tensor) -> Work:
    """Forward and backward pass, gradients of all parameters, and of x if it wants one."""
    leaves = [leaf for leaf in (x, *net.parameters()) if leaf.requires_grad]
    with torch.no_grad():
        grad = torch.randn_like(net(x))

    def step() -> None:
        torch.autograd.grad(net(x), leaves, grad)

    return step


def forward_of(net: nn.Module, x: Tensor) -> Work:
    """Forward pass without gradients."""

    def forward() -> None:
        with torch.no_grad():
            net(x)

    return forward


WORKS = {"forward": forward_of, "step": step_of}


def measure(nets: Mapping[str, nn.Module], x: Tensor, rounds: int) -> Row:
    """For every net: seconds of both works and bytes, each also over those of `BASE`."""
    found: Row = {name: {} for name in nets}
    for kind, make in WORKS.items():
        works = {name: make(net, x) for name, net in nets.items()}
        times = in_turns(works, x.device, rounds)
        for name in nets:
            seconds = statistics.median(times[name])
            found[name][kind] = {"seconds": seconds, **over(times[name], times[BASE])}
        if kind == "step":
            for name, work in works.items():
                found[name]["peak"] = {"bytes": peak_bytes(work, x.device)}
    for name, net in nets.items():
        found[name]["saved"] = {"bytes": kept_bytes(partial(net, x), net)}
    for kind in ("peak", "saved"):
        for name in nets:
            found[name][kind]["ratio"] = found[name][kind]["bytes"] / found[BASE][kind]["bytes"]
    return found


def layers(size: Size, made: Mapping[str, Any], memory_format: Any, rounds: int) -> list[Row]:
    """A row for every shape."""
    rows = []
    for shape, count in sorted(shapes_of(size).items()):
        nets = {
            name: make(shape).to(memory_format=memory_format, **made).train()
            for name, make in VARIANTS.items()
            if fits(name, shape, size.batch_size)
        }
        x = torch.randn(size.batch_size, shape.in_channels, shape.height, shape.width)
        x = x.to(memory_format=memory_format, **made).requires_grad_()
        rows.append({"shape": str(shape), "count": count, "found": measure(nets, x, rounds)})
        print(f"{shape}: {rows[-1]['found'][OURS]['step']['time_ratio']:.2f}", file=sys.stderr)
    return rows


def whole_nets(
    size: Size, made: Mapping[str, Any], memory_format: Any, rounds: int, compiled: bool
) -> list[Row]:
    """A row for every net, and one more for it compiled."""
    rows = []
    x = torch.randn(size.batch_size, 3, size.height, size.width)
    x = x.to(memory_format=memory_format, **made)
    for name in size.nets:
        for compiles in (False, True) if compiled else (False,):
            nets: dict[str, nn.Module] = {}
            for label, norm in NET_NORMS.items():
                net = create_model(name, num_classes=NUM_CLASSES, norm=norm, **size.options)
                net = net.to(memory_format=memory_format, **made).train()
                nets[label] = torch.compile(net) if compiles else net
            found = measure(nets, x, rounds)
            rows.append({"net": name, "compiled": compiles, "found": found})
            torch.compiler.reset()
    return rows


def main(
    size: Literal["cifar", "imagenet", "cityscapes"] = "cifar",
    device: str = "cpu",
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    channels_last: bool = False,
    compiled: bool = False,
    nets: Sequence[str] = (),
    threads: int = 2,
    rounds: int = 9,
    out: Path | None = None,
) -> None:
    """Print the tables; with `out` also write OUT.json, OUT.md and OUT.png."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    chosen = SIZES[size]._replace(nets=tuple(nets)) if nets else SIZES[size]
    made = {"device": device, "dtype": getattr(torch, dtype)}
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    for shape in (Shape(3, 5, 3, 2, 1, 9, 8), Shape(4, 6, 1, 1, 0, 5, 7)):
        check_naive(shape)
    is_cpu = torch.device(device).type == "cpu"
    record = {
        "command": shlex.join(["python", "-m", "benchmarks.layer_speed", *_arguments()]),
        "size": size,
        "image": [chosen.height, chosen.width],
        "batch_size": chosen.batch_size,
        "device": platform.machine() if is_cpu else torch.cuda.get_device_name(device),
        "dtype": dtype,
        "channels_last": channels_last,
        "threads": threads,
        "rounds": rounds,
        "torch": torch.__version__,
        "layers": layers(chosen, made, memory_format, rounds),
        "nets": whole_nets(chosen, made, memory_format, rounds, compiled),
    }
    publish(record, render, out)
    if out is not None:
        draw(record, Path(f"{out}.png"))


def _arguments() -> list[str]:
    """Of the command line, without where the results go."""
    words = sys.argv[1:]
    if "--out" in words:
        place = words.index("--out")
        words = words[:place] + words[place + 2 :]
    return words


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
