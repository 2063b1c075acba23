"""How the cost of a kernel-normalized convolution grows with image, channels and batch.

    python -m benchmarks.layer_growth --out docs/results/layer-growth

One 3x3 convolution, a step of which is forward and backward; three sweeps from one point. Beside
the times stand the operations and the bytes that a step must at least do and move, each tensor
once for each pass over it (`PASSES`), and the time that these take at the machine's own speed: that
of a large product of matrices, and that of a copy. The larger of the two is the limit.
"""

import math
import platform
import statistics
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jsonargparse import auto_cli

from benchmarks.layer_case import ALONE, BASE, OURS, VARIANTS, Shape
from benchmarks.layer_speed import step_of
from benchmarks.report import Record, publish
from knorm.training.pictures import new_figure
from knorm.training.profile import in_turns, kept_bytes, over, peak_bytes
from knorm.training.tables import markdown

Row = dict[str, Any]
POINT = {"image": 32, "channels": 64, "batch": 16}
SWEEPS = {
    "image": (8, 16, 32, 64, 128),
    "channels": (16, 32, 64, 128, 256),
    "batch": (1, 4, 16, 64),
}
COMPARED = (ALONE, BASE, OURS)
PASSES = {  # reads and writes of tensors of the input's size, and of the output's
    "moments, forward and again backward": (4, 0),
    "convolution": (1, 1),
    "scale": (0, 2),
    "unscale": (0, 3),
    "convolution, gradient of the input": (1, 1),
    "convolution, gradient of the weight": (1, 1),
    "add": (3, 0),
}
LARGE = 2**26  # elements of the copy
SIDE = 2048  # of the matrices


def limits(rounds: int) -> dict[str, float]:
    """Bytes a second of a copy, reads and writes counted, and operations of a product, float32."""
    source, matrix = torch.ones(LARGE), torch.randn(SIDE, SIDE)
    target, product = torch.empty(LARGE), torch.empty(SIDE, SIDE)
    works = {
        "copy": partial(target.copy_, source),
        "product": partial(torch.mm, matrix, matrix, out=product),
    }
    times = in_turns(works, source.device, rounds)
    return {
        "bytes": 2 * source.nbytes / min(times["copy"]),
        "operations": 2 * SIDE**3 / min(times["product"]),
    }


def counted(shape: Shape, batch_size: int) -> dict[str, float]:
    """Operations and bytes of a step."""
    x = batch_size * shape.in_channels * shape.height * shape.width
    y = batch_size * shape.out_channels * math.prod(shape.out)
    reads = [sum(column) for column in zip(*PASSES.values(), strict=True)]
    products = 3 * y * shape.in_channels * shape.kernel_size**2  # forward and two gradients
    return {"operations": 2.0 * products, "bytes": 4.0 * (reads[0] * x + reads[1] * y)}


def measure(image: int, channels: int, batch: int, speed: dict[str, float], rounds: int) -> Row:
    """One point."""
    shape = Shape(channels, channels, 3, 1, 1, image, image)
    nets = {name: VARIANTS[name](shape).train() for name in COMPARED}
    x = torch.randn(batch, channels, image, image).requires_grad_()
    works = {name: step_of(net, x) for name, net in nets.items()}
    times = in_turns(works, x.device, rounds)
    count = counted(shape, batch)
    of_limit = {kind: count[kind] / speed[kind] for kind in count}
    return {
        "image": image,
        "channels": channels,
        "batch": batch,
        **count,
        "limit": max(of_limit.values()),
        "bound": max(of_limit, key=lambda kind: of_limit[kind]),
        "found": {
            name: {
                "seconds": statistics.median(times[name]),
                **over(times[name], times[BASE]),
                "peak": peak_bytes(works[name], x.device),
                "saved": kept_bytes(partial(nets[name], x), nets[name]),
            }
            for name in COMPARED
        },
    }


def render(record: Record) -> str:
    """A table for each sweep."""
    speed = record["speed"]
    text = (
        "# How the cost of a kernel-normalized convolution grows\n\n"
        "A step, forward and backward, of one 3x3 convolution; float32, {machine}, {threads} "
        "threads, torch {torch}: medians of {rounds} rounds in which the variants took turns. "
        "From batch {batch}, {channels} channels, {image}x{image}. ".format(**record, **POINT)
        + f"The machine copies {speed['bytes'] / 1e9:.1f} GB/s (reads and writes) and does "
        f"{speed['operations'] / 1e9:.0f} GFLOP/s in a product of matrices; the limit is the "
        "longer of what the counted bytes and operations take so.\n\n"
    )
    for axis, rows in record["sweeps"].items():
        lines = []
        for row in rows:
            ours, base = row["found"][OURS], row["found"][BASE]
            lines.append(
                [
                    str(row[axis]),
                    f"{ours['seconds'] * 1e3:.2f}",
                    f"{ours['time_ratio']:.2f} "
                    f"({ours['lower_quartile']:.2f}-{ours['upper_quartile']:.2f})",
                    f"{ours['saved'] / base['saved']:.2f}",
                    f"{ours['peak'] / base['peak']:.2f}",
                    f"{row['bytes'] / 1e6:.1f}",
                    f"{row['operations'] / 1e9:.2f}",
                    f"{row['limit'] * 1e3:.2f}, {row['bound']}",
                    *(f"{row['found'][n]['seconds'] / row['limit']:.1f}" for n in (OURS, BASE)),
                ]
            )
        heads = [axis, f"{OURS}, ms", f"over `{BASE}`", "saved over it", "peak over it", "MB",
                 "GFLOP", "limit, ms", f"{OURS} over limit", f"`{BASE}` over limit"]  # fmt: skip
        text += f"## {axis.capitalize()}\n\n{markdown(heads, lines)}\n\n"
    return text + "```\n{command}\n```\n".format(**record)


def draw(record: Record, path: Path) -> None:
    """Time against each axis, with the limit."""
    figure, panels = new_figure(len(SWEEPS), len(SWEEPS))
    for axes, (axis, rows) in zip(panels, record["sweeps"].items(), strict=True):
        places = [row[axis] for row in rows]
        for name in COMPARED:
            axes.plot(places, [r["found"][name]["seconds"] for r in rows], "o-", label=name)
        axes.plot(places, [row["limit"] for row in rows], "k--", label="limit")
        axes.set(xscale="log", yscale="log", xlabel=axis, ylabel="seconds of a step")
        axes.set_xticks(places, [str(place) for place in places])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    figure.savefig(path)


def main(threads: int = 2, rounds: int = 15, out: Path | None = None) -> None:
    """Print the tables; with `out` also write OUT.json, OUT.md and OUT.png."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    speed = limits(rounds)
    sweeps: dict[str, list[Row]] = {}
    for axis, values in SWEEPS.items():
        points = [{**POINT, axis: value} for value in values]
        sweeps[axis] = [measure(**point, speed=speed, rounds=rounds) for point in points]
        print(f"{axis}: {[*values]}", file=sys.stderr)
    record = {
        "command": f"python -m benchmarks.layer_growth --threads {threads} --rounds {rounds}",
        "threads": threads,
        "rounds": rounds,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "speed": speed,
        "sweeps": sweeps,
    }
    publish(record, render, out)
    if out is not None:
        draw(record, Path(f"{out}.png"))


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
