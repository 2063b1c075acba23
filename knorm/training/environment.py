"""What a run ran on: versions, device, processes, threads, state of the source tree."""

import os
import platform
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

PACKAGES = (
    "accelerate",
    "jsonargparse",
    "knorm",
    "matplotlib",
    "numpy",
    "dp-accounting",
    "opacus",
    "pillow",
    "rich",
    "safetensors",
    "scikit-learn",
    "scipy",
    "timm",
    "torch",
    "torchmetrics",
    "torchvision",
)


def describe_environment(accelerator: Accelerator, source: Path) -> dict[str, Any]:
    """Everything about the surroundings that numbers may depend on; `source` is in the tree."""
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "versions": versions(),
        "device": device_name(accelerator.device),
        "processes": accelerator.num_processes,
        "distributed": str(accelerator.distributed_type).rpartition(".")[2],
        "mixed_precision": accelerator.mixed_precision,
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "git": git_state(source),
    }


def device_name(device: torch.device) -> str:
    """`cpu (x86_64)` or the GPU's own name."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device.type} ({platform.machine()})"


def git_state(source: Path) -> dict[str, Any] | None:
    """Commit and whether tracked files were changed; None outside a repository with commits."""
    commit = _git(source, "rev-parse", "HEAD")
    if commit is None:
        return None
    changes = _git(source, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "changed": bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def versions() -> dict[str, str]:
    """Versions of the packages that are installed; torch's own with its build."""
    found: dict[str, str] = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found | {"torch": torch.__version__}
