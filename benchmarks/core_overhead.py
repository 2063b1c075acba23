"""What the training core costs per step, over a bare PyTorch loop on the same net and images.

    python -m benchmarks.core_overhead --out docs/results/core-overhead

Three loops take turns, a few steps each a round, so that a slow moment of the machine falls on all
of them: a bare loop over batches that lie ready; the core (`train_epoch`: rate and seed of every
step, sums, progress, checks for signals and saving) over the same batches; and the core with its
data (order, cropping, flipping, scaling). A ratio is the median over the rounds. Before that the
bare loop and the core are shown to leave the same weights behind.
"""

import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jsonargparse import auto_cli
from torch import nn

from benchmarks.report import publish
from classification.config import Recipe, parse_recipe
from classification.data import Batch, ImageData, load_data, training_windows
from classification.work import ClassificationWork
from knorm.training.launch import start
from knorm.training.loop import Trainer, Window, gradient_step, train_epoch
from knorm.training.nets import make_model
from knorm.training.optim import make_optimizer
from knorm.training.progress import Progress
from knorm.training.trainer import make_trainer

Windows = list[Window[Batch]]


@dataclass
class Bench:
    """One recipe, its data, and batches of it that lie ready."""

    recipe: Recipe
    data: ImageData
    ready: Windows

    @property
    def work(self) -> ClassificationWork[Recipe]:
        return ClassificationWork(self.recipe, self.data)


def bare_loop(bench: Bench) -> tuple[nn.Module, Callable[[], None]]:
    """The loop that everyone writes."""
    net = make_model(
        bench.recipe.model,
        num_classes=len(bench.data.classes),
        in_chans=bench.recipe.data.facts.in_chans,
        seed=bench.recipe.seed,
    )
    optimizer = make_optimizer(bench.recipe.optim, net)
    net.train()

    def loop() -> None:
        for window in bench.ready:
            batch = window.batches[0]
            loss = F.cross_entropy(net(batch.inputs), batch.labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    return net, loop


def core_loop(bench: Bench, windows: Callable[[], Any]) -> tuple[Trainer, Callable[[], None]]:
    """The same steps by the core, over what `windows` gives."""
    trainer = make_trainer(bench.work)
    step = gradient_step(trainer, bench.work.loss)
    progress = Progress(epochs=1, steps=10**6, unit="img", enabled=True)

    def loop() -> None:
        train_epoch(trainer, windows(), step, progress)

    return trainer, loop


def augmented(bench: Bench) -> Callable[[], Any]:
    """Windows of the recipe's own data, epoch after epoch."""
    sampling, augment = bench.work.cut(), bench.recipe.augment
    epochs = (training_windows(bench.data, augment, sampling, epoch) for epoch in range(1, 10**6))
    stream = chain.from_iterable(epochs)
    return lambda: islice(stream, len(bench.ready))


def check_equal(bench: Bench) -> None:
    """Without dropout, bare loop and core leave the same weights."""
    recipe = bench.recipe
    still = Bench(recipe, bench.data, bench.ready[:2])
    dropout, recipe.model.dropout_p = recipe.model.dropout_p, 0.0
    (net, bare), (trainer, core) = bare_loop(still), core_loop(still, lambda: still.ready)
    trainer.rate_at = lambda step: recipe.optim.lr
    bare()
    core()
    torch.testing.assert_close(trainer.net.state_dict(), net.state_dict(), rtol=1e-4, atol=1e-5)
    recipe.model.dropout_p = dropout


def seconds(loop: Callable[[], None]) -> float:
    """Of one turn."""
    began = time.perf_counter()
    loop()
    return time.perf_counter() - began


def main(
    recipe: tuple[str, ...] = ("--config=digits",),
    steps: int = 10,
    rounds: int = 30,
    threads: int = 1,
    out: Path | None = None,
) -> None:
    """Measure and print.

    Args:
        recipe: options of `classification.train`.
        steps: steps of a turn.
        rounds: turns of every loop, after one that is not counted.
        threads: CPU threads.
        out: OUT.json and OUT.md are written.
    """
    settings = parse_recipe([*recipe, f"--launch.threads={threads}", "--launch.cpu=true"])
    accelerator = start(settings.launch)
    data = load_data(settings, accelerator)
    work = ClassificationWork(settings, data)
    windows = work.windows(work.cut(), 1)
    bench = Bench(settings, data, list(islice(windows, steps)))
    check_equal(bench)
    loops = {
        "bare loop": bare_loop(bench)[1],
        "core": core_loop(bench, lambda: bench.ready)[1],
        "core and data": core_loop(bench, augmented(bench))[1],
    }
    times: dict[str, list[float]] = {name: [] for name in loops}
    for turn in range(rounds + 1):
        for name, loop in loops.items():
            spent = seconds(loop)
            if turn:
                times[name].append(spent / steps)
    summary = {
        "net": settings.model.name,
        "data": settings.data.name,
        "batch_size": settings.batch_size,
        "threads": threads,
        "rounds": rounds,
        "steps": steps,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "rows": [row_of(name, times) for name in loops],
        "command": "python -m benchmarks.core_overhead "
        f"--recipe '{json.dumps(recipe)}' --steps {steps} --rounds {rounds} --threads {threads}",
    }
    publish(summary, render, out)


def render(summary: dict[str, Any]) -> str:
    """The page that OUT.md is."""
    lines = ["| | ms a step | over the bare loop | quartiles |", "| --- | --- | --- | --- |"]
    line = "| {loop} | {ms:.2f} | {ratio:.3f} | {low:.3f}-{high:.3f} |"
    lines += [line.format_map(row) for row in summary["rows"]]
    table = "\n".join(lines)
    return (
        "# What the training core costs\n\nOne training step by the core, over a bare PyTorch loop "
        'on the same net and images, turn about in one\nrun; "core and data" also draws, crops, '
        "flips and scales its images, which the others have ready.\n"
        f"\n{table}\n\n"
        "{net}, {data}, batch {batch_size}, {threads} thread(s), {rounds} rounds of {steps} steps; "
        "torch {torch}, {machine}.\n\n```\n{command}\n```\n".format_map(summary)
    )


def row_of(name: str, times: dict[str, list[float]]) -> dict[str, Any]:
    """Median time and ratio of a loop, and the ratio's quartiles."""
    ratios = [own / base for own, base in zip(times[name], times["bare loop"], strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    return {
        "loop": name,
        "ms": 1000 * statistics.median(times[name]),
        "ratio": statistics.median(ratios),
        "low": low,
        "high": high,
    }


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
