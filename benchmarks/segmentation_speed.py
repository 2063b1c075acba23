"""Segmentation's speed and memory: a training step, and inference on whole images and in windows.

    python -m benchmarks.segmentation_speed --threads 2 --out docs/results/segmentation-speed
    python -m benchmarks.segmentation_speed --batch_size 8 --windows 9      # where there is a GPU

First the nets are checked: they have the published numbers of parameters, every convolution of the
kernel net agrees with the definition, and windows give what a plain loop over them gives. Then each
net does each work once in a process of its own, whose memory is told: on the CPU the most that it
had resident beyond what it had before the net was made, on a GPU the most that tensors took. Last
the nets take turns at a work, once each a round, so that a slow moment of the machine falls on all
of them; a ratio is the median over the rounds of the ratio within a round. On the CPU time is that
of the process's own clock, all threads together, for other jobs do not count there.
"""

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jsonargparse import auto_cli
from torch import Tensor, nn

from benchmarks.apart import PROCESSES, judge_apart
from benchmarks.report import publish
from benchmarks.segmentation_case import (
    BASE,
    NETS,
    NUM_CLASSES,
    WORKS,
    Net,
    Shapes,
    Size,
    Work,
    in_windows,
    make,
    memory_of,
)
from benchmarks.training_step import check_against_definition
from knorm.training.profile import in_turns, over
from knorm.training.tables import markdown
from segmentation.inference import origins, probabilities
from segmentation.inference_config import Inference

Row = dict[str, Any]
MIB = 2**20
LIMIT = 1800  # seconds of a process whose memory is measured


class Kind(NamedTuple):
    """How a kind of device is measured."""

    clock: Callable[[], float]
    unit: str
    time: str
    """what the time is, in words, as `memory`"""
    memory: str


KINDS = {
    "cpu": Kind(
        time.process_time,
        "CPU s",
        "by the clock of the process, on which other jobs do not count",
        "the most a process of its own had resident, beyond what it had before the net",
    ),
    "cuda": Kind(
        time.perf_counter, "s", "on the wall", "the most that tensors took in a process of its own"
    ),
}


def check(nets: dict[Net, nn.Module]) -> int:
    """Raise AssertionError unless the nets are what they should be; the convolutions compared."""
    checked = 0
    for net, module in nets.items():
        assert sum(p.numel() for p in module.parameters()) == net.parameters, net
        image = torch.randn(1, 3, 96, 160, device=next(module.parameters()).device)
        if net.norm == "kernel":
            checked += check_against_definition(module, image)
        module.eval()
        settings = Inference(crop=(64, 96), windows=3)
        expected = by_hand(module, image, (64, 96), settings.steps)
        torch.testing.assert_close(
            probabilities(module, image, settings, NUM_CLASSES), expected, rtol=1e-3, atol=1e-5
        )
    return checked


@torch.no_grad()
def by_hand(net: nn.Module, image: Tensor, crop: Size, steps: Size) -> Tensor:
    """Mean chances of all windows that hold a pixel, one window at a time."""
    total = image.new_zeros(1, NUM_CLASSES, *image.shape[2:])
    seen = torch.zeros_like(total)
    for top in origins(image.shape[2], crop[0], steps[0]):
        for left in origins(image.shape[3], crop[1], steps[1]):
            place = ..., slice(top, top + crop[0]), slice(left, left + crop[1])
            total[place] += net(image[place]).softmax(1)
            seen[place] += 1
    return total / seen


def measure(
    nets: dict[Net, nn.Module], work: Work, shapes: Shapes, threads: int, rounds: int
) -> list[Row]:
    """A row for every net at this work."""
    memory = {}
    for net in nets:
        case = (str(NETS.index(net)), str(WORKS.index(work)), shapes, threads)
        found = judge_apart(memory_of, case, LIMIT)
        if "bytes" not in found:
            raise RuntimeError(f"{net.model}, {net.norm}, {work.name}: {found}")
        memory[net] = found["bytes"]
    does = {f"{net.model} {net.norm}": work.of(module, shapes) for net, module in nets.items()}
    clock = KINDS[shapes.device.type].clock
    times = list(in_turns(does, shapes.device, rounds, warm_up=1, clock=clock).values())
    base = list(nets).index(BASE)
    return [
        {
            "work": work.name,
            "model": net.model,
            "norm": net.norm,
            "seconds": statistics.median(row),
            "images_per_second": work.images(shapes) / statistics.median(row),
            "time_ratio": over(row, times[base])["time_ratio"],
            "time_ratios": [one / other for one, other in zip(row, times[base], strict=True)],
            "peak_mib": memory[net] / MIB,
            "peak_ratio": memory[net] / memory[BASE],
        }
        for net, row in zip(nets, times, strict=True)
    ]


def render(record: dict[str, Any]) -> str:
    """The table as Markdown."""
    over_base = f"over `{BASE.norm}`"
    kind = KINDS[record["device"].split()[0]]
    head = ["work", "net", "norm", kind.unit, f"images / {kind.unit}", f"time {over_base}",
            "lowest - highest", "peak MiB", f"peak {over_base}"]  # fmt: skip
    text = (
        "# Speed and memory of segmentation\n\n"
        "Images of {height}x{width} and crops of {crop_height}x{crop_width}, 19 classes, float32, "
        "{device}, {threads} thread(s), torch {torch}. A training step: {batch_size} crop(s), "
        "forward and backward pass, mean cross-entropy, SGD with momentum. Inference: chances of "
        "all classes for one image, seen as a whole, or in {count} windows of the size of a crop, "
        "{windows} at a time. Reading and augmentation are not in it. Time: median of {rounds} "
        "rounds in which the nets took turns, {time}. Peak: {memory}. The nets have the published "
        "numbers of parameters; the {checked} convolutions of the kernel net agreed with the "
        "definition and windows with a plain loop first. When this began other jobs had the "
        "{cores} cores of the machine under a load of {load:.1f}.\n\n"
    ).format(**record, time=kind.time, memory=kind.memory)
    text += markdown(head, [cells(row) for row in record["rows"]])
    return text + "\n\n```\n{command}\n```\n".format(**record)


def cells(row: Row) -> Sequence[str]:
    """Of one row."""
    extremes = f"{min(row['time_ratios']):.2f} - {max(row['time_ratios']):.2f}"
    numbers = [f"{row['seconds']:.2f}", f"{row['images_per_second']:.3f}"]
    ratios = [f"{row['time_ratio']:.2f}", extremes]
    memory = [f"{row['peak_mib']:,.0f}", f"{row['peak_ratio']:.2f}"]
    return [row["work"], row["model"], row["norm"], *numbers, *ratios, *memory]


def main(
    size: Size = (1024, 2048),
    crop: Size = (512, 1024),
    batch_size: int = 1,
    windows: int = 1,
    threads: int = 2,
    rounds: int = 3,
    out: Path | None = None,
) -> None:
    """Print the table, of a GPU if there is one; with `out` also write OUT.json and OUT.md."""
    load = os.getloadavg()[0]
    torch.set_num_threads(threads)
    PROCESSES.set_forkserver_preload(["benchmarks.segmentation_case"])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shapes = Shapes(size, crop, batch_size, windows, device)
    nets = {net: make(net, device) for net in NETS}
    checked = check(nets)
    steps = in_windows(shapes).steps
    axes = [len(origins(*axis)) for axis in zip(size, crop, steps, strict=True)]
    ask = partial(measure, nets, shapes=shapes, threads=threads, rounds=rounds)
    record = {
        "command": f"python -m benchmarks.segmentation_speed --size {_list(size)} "
        f"--crop {_list(crop)} --batch_size {batch_size} --windows {windows} "
        f"--threads {threads} --rounds {rounds}",
        "height": size[0],
        "width": size[1],
        "crop_height": crop[0],
        "crop_width": crop[1],
        "count": axes[0] * axes[1],
        "batch_size": batch_size,
        "windows": windows,
        "threads": threads,
        "rounds": rounds,
        "device": _name(device),
        "cores": os.cpu_count(),
        "load": load,
        "torch": torch.__version__,
        "checked": checked,
        "rows": [row for work in WORKS for row in ask(work)],
    }
    publish(record, render, out)


def _name(device: torch.device) -> str:
    return (
        f"cuda ({torch.cuda.get_device_name()})"
        if device.type == "cuda"
        else (f"cpu ({platform.machine()})")
    )


def _list(size: Size) -> str:
    return f"'[{size[0]},{size[1]}]'"


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
