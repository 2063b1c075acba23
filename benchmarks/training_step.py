"""One training step of a kernel-normalized net over the same net with other norms, side by side.

    python -m benchmarks.training_step --threads 2 --batch_size 16 --out docs/results/training-step

Every convolution of the kernel net is first checked against the definition. Then the nets take
turns, one step each a round, so that a slow moment of the machine falls on all of them; a ratio
is the median over the rounds of the ratio within a round. Saved activations are the bytes that
autograd keeps for the backward pass, parameters excepted, each storage counted once.
"""

import platform
import statistics
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jsonargparse import auto_cli
from torch import Tensor, nn

from benchmarks.report import publish
from knorm import KNConv2d, create_model
from knorm.kernel import reference
from knorm.training.profile import in_turns, over, saved_bytes, training_step

VARIANTS = {
    "batch": {"norm": "batch"},
    "group": {"norm": "group"},
    "none": {"norm": "none"},
    "kernel": {"norm": "kernel"},
    "kernel, no dropout": {"norm": "kernel", "dropout_p": 0.0},
    "kernel, published rule": {"norm": "kernel", "norm_options": {"bounded": False}},
}
BASE = "batch"

Row = dict[str, Any]


def check_against_definition(net: nn.Module, x: Tensor) -> int:
    """Every `KNConv2d` of the net, on its own input, against `reference`. Returns how many."""
    checked = 0

    def check(conv: nn.Module, inputs: tuple[Tensor], out: Tensor) -> None:
        nonlocal checked
        assert isinstance(conv, KNConv2d)
        height, width = conv.padding
        source = F.pad(inputs[0].double(), (width, width, height, height))
        geometry = (conv.kernel_size, conv.stride, conv.dilation)
        stats = reference.window_stats(source, *geometry, eps=conv.eps)
        bias = None if conv.bias is None else conv.bias.double()
        weight = conv.weight.double()
        expected = reference.kn_conv(source, *stats, weight, bias, *geometry[1:], conv.groups)
        torch.testing.assert_close(out.double(), expected, rtol=1e-3, atol=1e-3)
        checked += 1

    convs = [m for m in net.modules() if isinstance(m, KNConv2d)]
    settings = [(conv, conv.eval_stats) for conv in convs]
    hooks = [conv.register_forward_hook(check) for conv in convs]
    for conv in convs:
        conv.eval_stats = "plain"
    with torch.no_grad():
        net.eval()(x[:2])
    net.train()
    for hook in hooks:
        hook.remove()
    for conv, eval_stats in settings:
        conv.eval_stats = eval_stats
    return checked


def measure(nets: dict[str, nn.Module], x: Tensor, target: Tensor, rounds: int) -> list[Row]:
    """A row for each net: seconds, saved bytes, and both over those of the base."""
    saved = {name: saved_bytes(net, x, target) for name, net in nets.items()}
    steps = {name: partial(training_step, net, x, target) for name, net in nets.items()}
    times = in_turns(steps, x.device, rounds)
    return [
        {
            "norm": name,
            "seconds": statistics.median(times[name]),
            **over(times[name], times[BASE]),
            "saved_mib": saved[name] / 2**20,
            "saved_ratio": saved[name] / saved[BASE],
        }
        for name in nets
    ]


def render(record: dict[str, Any]) -> str:
    """The table as Markdown."""
    lines = [
        "# One training step\n",
        "{model}, {stem} stem, batch {batch_size} of {image_size}x{image_size}, float32, CPU, "
        "{threads} threads, torch {torch}: median of {rounds} rounds in which the nets took turns. "
        "The {checked} convolutions of the kernel net agreed with the definition first.\n".format(
            **record
        ),
        f"| norm | s / step | time over `{BASE}` | quartiles | MiB saved | saved over `{BASE}` |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in record["rows"]:
        lines.append(
            "| {norm} | {seconds:.3f} | {time_ratio:.2f} | {lower_quartile:.2f}-"
            "{upper_quartile:.2f} | {saved_mib:.1f} | {saved_ratio:.2f} |".format(**row)
        )
    lines.append("\n```\n{command}\n```\n".format(**record))
    return "\n".join(lines)


def main(
    model: str = "knresnet18",
    stem: Literal["cifar", "imagenet"] = "cifar",
    batch_size: int = 16,
    image_size: int = 32,
    threads: int = 2,
    rounds: int = 15,
    out: Path | None = None,
) -> None:
    """Print the table; with `out` also write OUT.json and OUT.md."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    x, target = torch.randn(batch_size, 3, image_size, image_size), torch.randint(10, (batch_size,))
    nets = {
        name: create_model(model, num_classes=10, stem=stem, **options)
        for name, options in VARIANTS.items()
    }
    record = {
        "command": f"python -m benchmarks.training_step --model {model} --stem {stem} "
        f"--batch_size {batch_size} --image_size {image_size} --threads {threads} "
        f"--rounds {rounds}",
        "model": model,
        "stem": stem,
        "batch_size": batch_size,
        "image_size": image_size,
        "threads": threads,
        "rounds": rounds,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "checked": check_against_definition(nets["kernel"], x),
        "rows": measure(nets, x, target, rounds),
    }
    publish(record, render, out)


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
