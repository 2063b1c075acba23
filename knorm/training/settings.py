"""Settings of the shared core that need no torch: a mistake in them is told at once."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Literal

from knorm.choices import TIMM, check_name
from knorm.training.mistakes import check_positive, check_range, check_unused

OPTIMIZERS: dict[str, tuple[str, ...]] = {
    "sgd": ("momentum", "nesterov"),
    "adam": ("betas",),
    "adamw": ("betas",),
}
"""name -> the settings of `Optim` that it takes besides rate and decay"""
USERS = {
    setting: [name for name, taken in OPTIMIZERS.items() if setting in taken]
    for setting in ("momentum", "nesterov", "betas")
}
TRACKERS = {  # name -> what `pip install` gets, what is imported
    "tensorboard": ("knorm[track]", "tensorboard"),
    "wandb": ("wandb", "wandb"),
    "trackio": ("trackio", "trackio"),
    "comet_ml": ("comet_ml", "comet_ml"),
    "aim": ("aim", "aim"),
    "mlflow": ("mlflow", "mlflow"),
    "clearml": ("clearml", "clearml"),
    "dvclive": ("dvclive", "dvclive"),
    "swanlab": ("swanlab", "swanlab"),
}
MOST_THREADS, MOST_SECONDS = 1024, 10**7


@dataclass(kw_only=True)
class Optim:
    """Optimizer. Rates are for the global batch, whatever the number of processes."""

    lr: float
    """peak learning rate"""
    name: str = "sgd"
    """sgd, adam, adamw, or timm:<name> for one of timm's, such as timm:lamb"""
    momentum: float = 0.9
    """momentum of sgd"""
    nesterov: bool = False
    """Nesterov's momentum, sgd only"""
    betas: tuple[float, float] = (0.9, 0.999)
    """decay of the running moments of adam and adamw"""
    weight_decay: float = 0.0
    """weight decay: an L2 term for sgd and adam, decoupled for adamw, as timm has it for others"""
    decay_vectors: bool = True
    """also decay biases and norm weights, i.e. parameters of one dimension"""
    clip_norm: float | None = None
    """largest norm of the whole gradient; null: no clipping"""
    options: dict[str, Any] = field(default_factory=dict)
    """further arguments of this optimizer, such as eps; all of them where it is one of timm's"""

    def __post_init__(self) -> None:
        check_positive("optim.lr", self.lr)
        check_range("optim.momentum", self.momentum, 0, 1)
        check_range("optim.weight_decay", self.weight_decay, 0, 1)
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"optim.betas must lie in [0, 1), got {self.betas}")
        if self.nesterov and self.momentum == 0:
            raise ValueError("optim.nesterov needs an optim.momentum above 0")
        if self.clip_norm is not None:
            check_positive("optim.clip_norm", self.clip_norm)
        if not self.name.startswith(TIMM):
            check_name("optimizer", self.name, [*OPTIMIZERS, f"{TIMM}<name>"])
        check_unused("optim", self, USERS)


@dataclass(kw_only=True)
class Launch:
    """Device, processes and number format."""

    cpu: bool = False
    """stay on the CPU even where there is an accelerator"""
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    """number format of the net's forward pass; weights and statistics stay in float32"""
    channels_last: bool = False
    """store images and convolution weights with the channels last in memory"""
    compile: bool = False
    """compile the net (torch.compile): slow first steps, then faster ones"""
    deterministic: bool = False
    """only operations that give the same bits every time; one that cannot ends the run"""
    threads: int | None = None
    """CPU threads of each process; null: as torch decides. Small images gain nothing from many"""
    processes: int | None = None
    """stop unless the launcher started this many processes; null: any number will do"""
    timeout: float = 1800
    """seconds that processes wait for each other, at the start and later, before the run fails"""

    def __post_init__(self) -> None:
        if self.threads is not None:
            check_range("launch.threads", self.threads, 1, MOST_THREADS)
        if self.processes is not None:
            check_positive("launch.processes", self.processes)
        check_positive("launch.timeout", self.timeout)
        check_range("launch.timeout", self.timeout, 0, MOST_SECONDS)


@dataclass(kw_only=True)
class Keep:
    """Checkpoints: last/ and, chosen on the validation split, best/ are always kept."""

    minutes: float = 10.0
    """time after which last/ is also saved in mid-epoch, between two steps"""
    every: int | None = None
    """keep the weights of every so many epochs for good, as epoch-<number>/; null: none"""

    def __post_init__(self) -> None:
        check_range("keep.minutes", self.minutes, 0, math.inf)
        if self.every is not None:
            check_positive("keep.every", self.every)


def check_trackers(names: Sequence[str]) -> None:
    """Raise ValueError unless all are trackers that Accelerate supports and that are installed."""
    for name in names:
        check_name("track", name, TRACKERS)
        package, module = TRACKERS[name]
        if find_spec(module) is None:
            raise ValueError(f'track: {name} is not installed; pip install "{package}"')
