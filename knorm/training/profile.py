"""How long nets take and how much they keep. Nets take turns, one run each a round, so that a slow
moment of the machine falls on all of them; a ratio is taken within a round."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

WARM_UP = 2  # rounds that are not counted


def saved_bytes(net: nn.Module, x: Tensor, target: Tensor) -> int:
    """Bytes of all storages that one forward pass keeps, parameters excepted."""
    return kept_bytes(lambda: F.cross_entropy(net(x), target), net)


def kept_bytes(work: Callable[[], Tensor], net: nn.Module) -> int:
    """Bytes of all storages that `work`, which runs the net, keeps for its gradient.

    Parameters excepted; each storage counts once.
    """
    parameters = {p.untyped_storage().data_ptr() for p in net.parameters()}
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = work()
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in kept}
    del out
    return sum(size for pointer, size in storages.items() if pointer not in parameters)


def peak_bytes(work: Callable[[], object], device: torch.device) -> int:
    """The most bytes of tensors alive during `work` beyond those alive before."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        work()
    assert recorded.profiler is not None
    assert recorded.profiler.kineto_results is not None
    events: list[Any] = list(recorded.profiler.kineto_results.events())
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    alive = peak = 0
    for _, change in changes:
        alive += change
        peak = max(peak, alive)
    return peak


def training_step(net: nn.Module, x: Tensor, target: Tensor) -> None:
    """Forward and backward pass in training mode, without an optimizer."""
    net.train()
    net.zero_grad()
    F.cross_entropy(net(x), target).backward()


def forward_pass(net: nn.Module, x: Tensor) -> None:
    """Forward pass in evaluation mode, without gradients."""
    net.eval()
    with torch.no_grad():
        net(x)


def seconds_of(
    work: Callable[[], object],
    device: torch.device,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Of `work` by that clock, usually on the wall, all that it started on the device included."""
    start = clock()
    work()
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return clock() - start


def in_turns(
    works: Mapping[str, Callable[[], object]],
    device: torch.device,
    rounds: int,
    *,
    warm_up: int = WARM_UP,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each work in each round, after rounds to warm up."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(warm_up + rounds):
        for name, work in works.items():
            times[name].append(seconds_of(work, device, clock))
    return {name: row[warm_up:] for name, row in times.items()}


def over(times: Sequence[float], base: Sequence[float]) -> dict[str, float]:
    """Median and quartiles of the ratios within a round."""
    ratios = sorted(t / b for t, b in zip(times, base, strict=True))
    quarter = len(ratios) // 4
    return {
        "time_ratio": statistics.median(ratios),
        "lower_quartile": ratios[quarter],
        "upper_quartile": ratios[-1 - quarter],
    }


def write_trace(net: nn.Module, x: Tensor, target: Tensor, path: Path) -> None:
    """A training step as a Chrome trace (chrome://tracing, ui.perfetto.dev), after a first one."""
    training_step(net, x, target)
    activities = [ProfilerActivity.CPU]
    if x.is_cuda:
        activities.append(ProfilerActivity.CUDA)
    path.parent.mkdir(parents=True, exist_ok=True)
    with profile(activities=activities, record_shapes=True) as recorded:
        training_step(net, x, target)
    recorded.export_chrome_trace(str(path))
