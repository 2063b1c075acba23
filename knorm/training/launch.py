"""From settings to an `Accelerator`: device, processes and number format."""

import os
from dataclasses import dataclass
from typing import Literal

import torch
from accelerate import Accelerator

from knorm.training.mistakes import UserMistakeError, check_positive


@dataclass(kw_only=True)
class Launch:
    """Device, processes and number format."""

    cpu: bool = False
    """stay on the CPU even where there is an accelerator"""
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    """number format of the net's forward pass; weights and statistics stay in float32"""
    channels_last: bool = False
    """store images and convolution weights with the channels last in memory"""
    threads: int | None = None
    """CPU threads of each process; null: as torch decides. Small images gain nothing from many"""
    processes: int | None = None
    """stop unless the launcher started this many processes; null: any number will do"""

    def __post_init__(self) -> None:
        for name in ("threads", "processes"):
            if getattr(self, name) is not None:
                check_positive(f"launch.{name}", getattr(self, name))

    @property
    def on_cpu(self) -> bool:
        """Whether the run stays on the CPU, because asked to or for want of anything else."""
        return self.cpu or not torch.accelerator.is_available()


def world_size() -> int:
    """Number of processes that the launcher says it started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def check_launch(launch: Launch, *, batch_size: int) -> None:
    """Raise `UserMistakeError` where launcher and settings disagree; opens no process group."""
    started = world_size()
    if launch.processes not in (None, started):
        raise UserMistakeError(
            f"launch.processes is {launch.processes}, but the launcher started {started}; "
            + command_hint(launch.processes)
        )
    if batch_size % started:
        raise UserMistakeError(
            f"batch_size {batch_size} is for all {started} processes together and must be "
            "divisible by their number"
        )
    if launch.on_cpu and launch.mixed_precision == "fp16":
        raise UserMistakeError("launch.mixed_precision fp16 needs a GPU; the CPU has bf16")
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if asked not in ("no", launch.mixed_precision):
        raise UserMistakeError(
            f"the launcher asks for {asked}, but launch.mixed_precision is "
            f"{launch.mixed_precision}; set it there, it belongs to the recipe"
        )


def command_hint(processes: int) -> str:
    """How to start that many processes."""
    if processes == 1:
        return "start it with `python -m ...`"
    return f"start it with `accelerate launch --multi_gpu --num_processes {processes} -m ...`"


def start(launch: Launch) -> Accelerator:
    """The accelerator of this run; stops where the launcher's processes did not find each other."""
    if launch.threads is not None:
        torch.set_num_threads(launch.threads)
    accelerator = Accelerator(
        cpu=launch.on_cpu,
        mixed_precision=launch.mixed_precision,
        step_scheduler_with_optimizer=False,
    )
    started = world_size()
    if accelerator.num_processes != started:
        raise UserMistakeError(
            f"the launcher started {started} processes, but each is alone: "
            f"{accelerator.num_processes} in its group; " + command_hint(started)
        )
    return accelerator
