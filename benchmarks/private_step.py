"""What one private training step costs, over the same step without privacy: ours and Opacus.

    python -m benchmarks.private_step --threads 2 --out docs/results/private-step

Every way (`benchmarks.step_ways`) first takes a step without noise, whose gradient must be the mean
of clipped gradients of one record's loss at a time; a way that raises or differs is told and not
timed. Then all ways of a net take turns, one step each a round; a ratio is the median over the
rounds of the ratio within a round. Memory is the peak, within a step, of all tensors that were
allocated in it, by torch's profiler; scratch memory of the convolutions is not seen.
"""

import copy
import platform
import statistics
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import opacus
import torch
from jsonargparse import auto_cli
from torch import Tensor, nn

from benchmarks.report import publish
from benchmarks.step_ways import PLAIN, PRIVATE, Way, clipped_mean
from knorm import create_model
from knorm.training.profile import in_turns, over, peak_bytes
from knorm.training.tables import markdown
from privacy.per_record import trainable

Row = dict[str, Any]
SEED, SIGMA, CHECKED = 0, 1.0, 4
TOLERANCE = 1e-4  # of the whole gradient, float32
NUM_CLASSES, SIZE = 10, 32
MIB = 2**20


def conv_net() -> nn.Module:
    """Convolutions without norms, as in most papers on private training."""
    widths = (3, 32, 64, 128)
    layers: list[nn.Module] = []
    for channels, width in pairwise(widths):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.Tanh(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 4 * 4, NUM_CLASSES))


def ours_of(name: str, **options: Any) -> Callable[[], nn.Module]:
    """A net of the suite."""
    return lambda: create_model(name, num_classes=NUM_CLASSES, stem="cifar", **options)


NETS = {
    "conv net, no norm": conv_net,
    "ResNet-8, group norm": ours_of("resnet8", norm="group"),
    "KNResNet-13, half width": ours_of("knresnet13", width=0.5),
    "the same without dropout": ours_of(
        "knresnet13", width=0.5, dropout_p=0.0, final_dropout_p=0.0
    ),
    "the same, group norm": ours_of("knresnet13", width=0.5, norm="group"),
    "KNResNet-18": ours_of("knresnet18"),
}


def failure(way: Way, net: nn.Module, x: Tensor, labels: Tensor) -> str:
    """Why the way is not to be timed, or nothing."""
    torch.manual_seed(SEED)
    expected = clipped_mean(net, x, labels)
    net = copy.deepcopy(net)
    torch.manual_seed(SEED)
    try:
        way.step(net, x, labels, sigma=0.0)()
    except Exception as error:  # whatever a library raises
        return f"raises {type(error).__name__}: {str(error).splitlines()[0][:150]}"
    pairs = [(p.grad, expected[name]) for name, p in trainable(net)]
    apart = torch.stack([(grad - other).norm() for grad, other in pairs if grad is not None])
    whole = torch.stack([other.norm() for _, other in pairs]).norm()
    difference = (apart.norm() / whole).item()
    return "" if difference <= TOLERANCE else f"wrong by {difference:.0%} of the gradient"


def measure(name: str, batch_size: int, rounds: int) -> list[Row]:
    """A row for every way of a net: seconds and peak bytes, or why there are none."""
    torch.manual_seed(SEED)
    net = NETS[name]()
    x, labels = torch.randn(batch_size, 3, SIZE, SIZE), torch.randint(NUM_CLASSES, (batch_size,))
    failures = {way.name: failure(way, net, x[:CHECKED], labels[:CHECKED]) for way in PRIVATE}
    failures[PLAIN.name] = ""
    steps = {
        way.name: way.step(copy.deepcopy(net), x, labels, sigma=SIGMA)
        for way in (PLAIN, *PRIVATE)
        if not failures[way.name]
    }
    times = in_turns(steps, x.device, rounds)
    peaks = {way: peak_bytes(step, x.device) for way, step in steps.items()}
    base = PLAIN.name
    parameters = sum(p.numel() for p in net.parameters())
    return [
        {"net": name, "parameters": parameters, "way": way.name, "failure": failures[way.name]}
        | (
            {
                "seconds": statistics.median(times[way.name]),
                **over(times[way.name], times[base]),
                "peak_mib": peaks[way.name] / MIB,
                "peak_ratio": peaks[way.name] / peaks[base],
            }
            if way.name in steps
            else {}
        )
        for way in (PLAIN, *PRIVATE)
    ]


def render(record: dict[str, Any]) -> str:
    """The table as Markdown."""
    head = ["net", "parameters", "way", "s / step", "over no privacy", "quartiles",
            "peak MiB", "over no privacy"]  # fmt: skip
    text = (
        "# One private training step\n\n"
        "Batch {batch_size} of {size}x{size}, float32, CPU, {threads} threads, torch {torch}, "
        "Opacus {opacus}: median of {rounds} rounds in which the ways of a net took turns; "
        "quartiles of the ratio. A step: forward and backward pass, every record clipped, noise, "
        "SGD. Without noise every way that has numbers agreed first with clipping one record's "
        "gradient at a time. Noise: ours from the run's secret by SHAKE-256, Opacus's from torch's "
        "generator. Peak: bytes of all tensors allocated in a step that were alive "
        "together, by torch's profiler.\n\n".format(**record)
    )
    text += markdown(head, [cells(row) for row in record["rows"]])
    failures = [row for row in record["rows"] if row["failure"]]
    text += "\n\n" + "\n".join("- {net}, {way}: {failure}".format(**row) for row in failures)
    return text.rstrip() + "\n\n```\n{command}\n```\n".format(**record)


def cells(row: Row) -> list[str]:
    """Of one row."""
    first = [row["net"], f"{row['parameters']:,}", row["way"]]
    if row["failure"]:
        return [*first, *["-"] * 5]
    quartiles = f"{row['lower_quartile']:.2f}-{row['upper_quartile']:.2f}"
    numbers = [f"{row['seconds']:.3f}", f"{row['time_ratio']:.2f}", quartiles]
    return [*first, *numbers, f"{row['peak_mib']:.1f}", f"{row['peak_ratio']:.2f}"]


def main(batch_size: int = 32, threads: int = 2, rounds: int = 15, out: Path | None = None) -> None:
    """Print the table; with `out` also write OUT.json and OUT.md."""
    torch.set_num_threads(threads)
    warnings.filterwarnings("ignore", "Full backward hook is firing")  # Opacus's hooks on images
    record = {
        "command": f"python -m benchmarks.private_step --batch_size {batch_size} "
        f"--threads {threads} --rounds {rounds}",
        "batch_size": batch_size,
        "size": SIZE,
        "threads": threads,
        "rounds": rounds,
        "torch": torch.__version__,
        "opacus": opacus.__version__,
        "machine": platform.machine(),
        "rows": [row for name in NETS for row in measure(name, batch_size, rounds)],
    }
    publish(record, render, out)


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
