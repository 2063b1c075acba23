"""One training step of nets of KAN convolutions over that of plain ones, and over naive code.

    python -m benchmarks.kan_cost --rounds 5 --out docs/results/kan-cost
    python -m benchmarks.kan_cost --convs '[plain, kan]' --batch_size 128 \
        --out docs/results/kan-cost-splines

Naive code makes the same functions as their formulas stand: B-splines by the recursion of Cox and
de Boor, wavelets of all pairs of channels at once. Its outputs and gradients are first checked to
be the same. Then the nets take turns, one step each a round; times are of the process's clock,
which a busy machine hardly moves, and a ratio is the median over the rounds of the ratio within a
round. Convolutions alone are those of the spline net's maps, ready made, forward and backward: no
code that convolves all maps takes less. Saved activations are the bytes that autograd keeps for
the backward pass, parameters excepted, each storage counted once.
"""

import platform
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jsonargparse import auto_cli
from torch import Tensor, nn

from benchmarks.kan_naive import NAIVE, naive
from benchmarks.report import publish
from knorm import KANConv2d, create_model
from knorm.kan.branches import BasisBranch
from knorm.models.kan_nets import CONVS, PLAIN
from knorm.training.cost import count_parameters
from knorm.training.profile import in_turns, over, saved_bytes, training_step

NAIVE_NAMES = {"kan": "kan, naive: recursion", "wavkan": "wavkan, naive: all pairs at once"}
ALONE = "convolutions alone"
MIB = 2**20

Row = dict[str, Any]


def make_nets(model: str, convs: Sequence[str] = CONVS) -> dict[str, nn.Module]:
    """A net of each kind of convolution, groups 1, and naive copies of two."""
    nets = {conv: create_model(model, num_classes=10, conv=conv) for conv in convs}
    return nets | {NAIVE_NAMES[conv]: naive(nets[conv]) for conv in NAIVE if conv in nets}


def check_naive(nets: dict[str, nn.Module], x: Tensor, target: Tensor) -> None:
    """Naive copies give the outputs and the gradients of the nets that they are copied from."""
    for conv, name in NAIVE_NAMES.items():
        if conv not in nets:
            continue
        pair = [nets[conv].double().eval(), nets[name].double().eval()]
        outs = [net(x.double()) for net in pair]
        torch.testing.assert_close(*outs)
        losses = [F.cross_entropy(out, target) for out in outs]
        gradients = [
            {n: g for (n, _), g in zip(named, torch.autograd.grad(loss, params), strict=True)}
            for net, loss in zip(pair, losses, strict=True)
            for named in [list(net.named_parameters())]
            for params in [[p for _, p in named]]
        ]
        torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-9)
        for net in pair:
            net.float()


def convolutions_of(net: nn.Module, x: Tensor) -> Callable[[], None]:
    """Forward and backward passes of the convolutions of a spline net's maps, and nothing else."""
    cases = []

    def note(layer: KANConv2d, inputs: tuple[Tensor], out: Tensor) -> None:
        branch = layer.basis
        assert isinstance(branch, BasisBranch)
        maps = torch.rand(len(x), branch.weight[0, :, :, 0, 0].numel(), *inputs[0].shape[2:])
        weight = branch.weight.detach().flatten(1, 2).requires_grad_()
        cases.append(
            (maps.requires_grad_(layer.in_channels != x.shape[1]), weight, branch.geometry)
        )

    layers = [m for m in net.modules() if isinstance(m, KANConv2d)]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    with torch.no_grad():
        net(x)
    for hook in hooks:
        hook.remove()

    def convolve() -> None:
        for maps, weight, geometry in cases:
            out = F.conv2d(maps, weight, None, *geometry)
            leaves = [leaf for leaf in (maps, weight) if leaf.requires_grad]
            torch.autograd.grad(out, leaves, torch.ones_like(out))

    return convolve


def measure(nets: dict[str, nn.Module], x: Tensor, target: Tensor, rounds: int) -> list[Row]:
    """A row for each net: seconds, saved bytes, and both over those of the plain net."""
    saved = {name: saved_bytes(net, x, target) for name, net in nets.items()}
    steps = {name: partial(training_step, net, x, target) for name, net in nets.items()}
    steps[ALONE] = convolutions_of(nets["kan"], x)
    times = in_turns(steps, x.device, rounds, clock=time.process_time)
    rows = []
    for name, net in nets.items():
        row: Row = {
            "conv": name,
            "parameters": count_parameters(net),
            "seconds": statistics.median(times[name]),
            **over(times[name], times[PLAIN]),
            "saved_mib": saved[name] / len(x) / MIB,
        }
        if name in NAIVE_NAMES:
            slow = NAIVE_NAMES[name]
            row["naive"] = over(times[slow], times[name]) | {"saved": saved[slow] / saved[name]}
        if name == "kan":
            row["alone"] = over(times[ALONE], times[name])["time_ratio"]
        rows.append(row)
    return rows


def render(record: dict[str, Any]) -> str:
    """The table as Markdown."""
    lines = [
        "# What KAN convolutions cost\n",
        "{model}, groups 1, batch {batch_size} of {image_size}x{image_size}, float32, CPU, threads "
        "{threads}, torch {torch}: median of {rounds} rounds in which the nets took turns, by the "
        "clock of the process. Outputs and gradients of the naive code agreed first.\n".format(
            **record
        ),
        f"| convolution | parameters | s / step | time over `{PLAIN}` | quartiles | MiB saved per "
        "image |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in record["rows"]:
        lines.append(
            "| {conv} | {parameters:,} | {seconds:.3f} | {time_ratio:.1f} | {lower_quartile:.1f}-"
            "{upper_quartile:.1f} | {saved_mib:.2f} |".format(**row)
        )
    lines += ["\n| convolution | naive time over ours | quartiles | naive saved over ours |"]
    lines += ["| --- | --- | --- | --- |"]
    for row in record["rows"]:
        if "naive" in row:
            lines.append(
                "| {0} | {time_ratio:.1f} | {lower_quartile:.1f}-{upper_quartile:.1f} | "
                "{saved:.1f} |".format(row["conv"], **row["naive"])
            )
    alone = next(row["alone"] for row in record["rows"] if "alone" in row)
    lines.append(f"\nOf a step of `kan`, convolutions alone take {alone:.0%}.")
    lines.append("\n```\n{command}\n```\n".format(**record))
    return "\n".join(lines)


def main(
    model: str = "kannet4",
    batch_size: int = 16,
    image_size: int = 32,
    threads: int = 1,
    rounds: int = 3,
    convs: Sequence[str] = CONVS,
    out: Path | None = None,
) -> None:
    """Print the table; with `out` also write OUT.json and OUT.md."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    x, target = torch.randn(batch_size, 3, image_size, image_size), torch.randint(10, (batch_size,))
    nets = make_nets(model, convs)
    check_naive(nets, x[:1], target[:1])
    record = {
        "command": f"python -m benchmarks.kan_cost --model {model} --batch_size {batch_size} "
        f"--image_size {image_size} --threads {threads} --rounds {rounds}"
        + ("" if tuple(convs) == CONVS else f" --convs '[{', '.join(convs)}]'"),
        "model": model,
        "batch_size": batch_size,
        "image_size": image_size,
        "threads": threads,
        "rounds": rounds,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "rows": measure(nets, x, target, rounds),
    }
    publish(record, render, out)


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
