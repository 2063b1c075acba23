"""From settings to an `Accelerator`: device, processes and number format.

A launch that would run as something else than it says stops here, with the command to use.
"""

import os
from datetime import timedelta

import torch
from accelerate import Accelerator, DistributedType, InitProcessGroupKwargs
from torch import nn
from torch.distributed import DistError

from knorm.training.mistakes import UserMistakeError
from knorm.training.settings import Launch

MEETING = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # what every launcher sets
MOST_PROCESSES = 10**6


def stays_on_cpu(launch: Launch) -> bool:
    """Whether the run stays on the CPU, because asked to or for want of anything else."""
    return launch.cpu or not torch.accelerator.is_available()


def world_size() -> int:
    """Number of processes that the launcher says it started."""
    return number_in("WORLD_SIZE", "1", 1, MOST_PROCESSES)


def number_in(name: str, default: str, low: int, high: int) -> int:
    """The number from low to high that the environment gives; `UserMistakeError` for another."""
    text = os.environ.get(name, default)
    if not text.isdecimal() or not low <= int(text) <= high:
        raise UserMistakeError(
            f"the environment's {name} must be a whole number from {low} to {high}, got {text!r}; "
            "unset it, or let the launcher set it"
        )
    return int(text)


def check_launch(launch: Launch, *, batch_size: int) -> None:
    """Raise `UserMistakeError` where launcher and settings disagree; opens no process group."""
    check_processes(launch)
    if batch_size % world_size():
        raise UserMistakeError(
            f"batch_size {batch_size} is for all {world_size()} processes together and must be "
            "divisible by their number"
        )
    if stays_on_cpu(launch) and launch.mixed_precision == "fp16":
        raise UserMistakeError("launch.mixed_precision fp16 needs a GPU; the CPU has bf16")
    check_wishes(launch)


def check_processes(launch: Launch) -> None:
    """The launcher started what it was asked for, what the recipe wants, and what fits."""
    started = world_size()
    if launched_alone():
        raise UserMistakeError(
            "the launcher was asked for several processes and started one: its --cpu, MULTI_CPU "
            f"and NO always do; for 2 {command_hint(2)}"
        )
    if launch.processes not in (None, started):
        raise UserMistakeError(
            f"launch.processes is {launch.processes}, but the launcher started {started}; "
            + command_hint(launch.processes)
        )
    here = number_in("LOCAL_WORLD_SIZE", str(started), 1, started)
    devices = here if stays_on_cpu(launch) else torch.accelerator.device_count()
    if here > devices:
        raise UserMistakeError(
            f"the launcher started {here} processes on this machine, which has {devices} GPU(s); "
            f"{command_hint(devices)}, or add --launch.cpu true"
        )


def launched_alone() -> bool:
    """Whether Accelerate's launcher was asked for several processes but started a single one.

    It tells that process of a port to meet at, but of no others. `ACCELERATE_USE_CPU` is what
    only its starter of single processes sets.
    """
    env = os.environ
    return "ACCELERATE_USE_CPU" in env and "MASTER_PORT" in env and "WORLD_SIZE" not in env


def check_wishes(launch: Launch) -> None:
    """What the launcher asks for beside processes is what the recipe says, and can be had."""
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if asked not in ("no", launch.mixed_precision):
        raise UserMistakeError(
            f"the launcher asks for {asked}, but launch.mixed_precision is "
            f"{launch.mixed_precision}; set it there, it belongs to the recipe"
        )
    if os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no").lower() != "no":
        raise UserMistakeError(
            "the launcher asks for compilation (dynamo); add --launch.compile true instead, "
            "it belongs to the recipe"
        )
    if os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1") != "1":
        raise UserMistakeError(
            "ACCELERATE_GRADIENT_ACCUMULATION_STEPS is set; unset it and give --accumulation, "
            "it belongs to the recipe"
        )
    if flag("ACCELERATE_USE_CPU") and not stays_on_cpu(launch):
        raise UserMistakeError("the launcher asks for the CPU; add --launch.cpu true as well")
    if flag("ACCELERATE_USE_FSDP") and stays_on_cpu(launch):
        raise UserMistakeError(
            "the launcher asks for FSDP, which needs GPUs; on the CPU every process keeps the "
            f"whole net: {command_hint(world_size())}"
        )
    for name in ("DEEPSPEED", "MEGATRON_LM"):
        if flag(f"ACCELERATE_USE_{name}"):
            raise UserMistakeError(
                f"the launcher asks for {name}, which is not supported; "
                + command_hint(world_size())
            )


def flag(name: str) -> bool:
    """Whether the environment sets this to yes."""
    return os.environ.get(name, "").lower() in ("1", "true", "yes")


def command_hint(processes: int) -> str:
    """How to start that many processes."""
    if processes == 1:
        return "start it with `python -m ...`"
    if not torch.accelerator.is_available():
        config = "--config_file launch/cpu2.yaml"
        return f"start it with `accelerate launch {config} --num_processes {processes} -m ...`"
    return f"start it with `accelerate launch --multi_gpu --num_processes {processes} -m ...`"


def start(launch: Launch) -> Accelerator:
    """The accelerator of this run; stops where the launcher's processes did not find each other."""
    if launch.threads is not None:
        torch.set_num_threads(launch.threads)
    if launch.deterministic:
        be_deterministic()
    started = world_size()
    if started > 1:
        check_meeting(started)
    try:
        accelerator = Accelerator(
            cpu=stays_on_cpu(launch),
            mixed_precision=launch.mixed_precision,
            step_scheduler_with_optimizer=False,
            kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(seconds=launch.timeout))],
        )
    except DistError as error:
        raise UserMistakeError(meeting_failed(str(error), launch)) from error
    if accelerator.num_processes != started:
        raise UserMistakeError(
            f"the launcher started {started} processes, but each is alone: "
            f"{accelerator.num_processes} in its group; " + command_hint(started)
        )
    return accelerator


def check_meeting(started: int) -> None:
    """Raise `UserMistakeError` unless the launcher says which process this is and where to meet."""
    missing = [name for name in MEETING if not os.environ.get(name)]
    if missing:
        raise UserMistakeError(
            f"the environment's WORLD_SIZE is {started}, but it has no {missing[0]}, so that these "
            f"processes cannot meet; {command_hint(started)}, or unset WORLD_SIZE"
        )
    for name, high in (("RANK", started - 1), ("LOCAL_RANK", started - 1), ("MASTER_PORT", 65535)):
        number_in(name, "", 0, high)


def meeting_failed(reason: str, launch: Launch) -> str:
    """Why the processes did not come together, in one line."""
    address, port = (os.environ.get(name, "?") for name in ("MASTER_ADDR", "MASTER_PORT"))
    if "EADDRINUSE" in reason:
        return (
            f"port {port} is in use, by another run perhaps; give `accelerate launch` another "
            "with --main_process_port, 0 for any free one"
        )
    return (
        f"the {world_size()} processes did not all come to {address}, port {port}, within "
        f"{launch.timeout:g} s (launch.timeout): {reason.splitlines()[0]}"
    )


def be_deterministic() -> None:
    """From now on torch gives the same bits every time or raises; before the GPU's first use."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else cuBLAS may not repeat itself
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def compiled(net: nn.Module, launch: Launch) -> nn.Module:
    """The net, compiled in place where that is asked for; its weights keep their names."""
    if launch.compile:
        net.compile()
    return net


def strategy(accelerator: Accelerator) -> str:
    """How the processes share the work, in words: `DDP, 2 processes on cpu`."""
    processes = accelerator.num_processes
    if processes == 1:
        return "one process"
    if accelerator.distributed_type == DistributedType.FSDP:
        plugin = accelerator.state.fsdp_plugin
        full = plugin is not None and plugin.reshard_after_forward
        return f"FSDP {'full shard' if full else 'gradient shard'}, {processes} processes"
    return f"DDP, {processes} processes on {accelerator.device.type}"
