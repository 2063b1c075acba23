"""The private step: clip every record, sum over all ranks, add noise once, then the optimizer's.

Nothing of a step leaves the main process before the ledger has it. The sum is divided by the
expected number of records, which is public, never by the true one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import broadcast
from torch import Tensor, nn

from knorm.training.loop import Step, Sums, Trainer, Window
from privacy.clipping import clipped_sums
from privacy.config import Privacy
from privacy.ledger import Ledger
from privacy.noise import add_noise
from privacy.per_record import Recorder, trainable
from privacy.rules import RULES
from privacy.secret import Secret

LossOf = Callable[[nn.Module, Any], tuple[Tensor, Sums]]


@dataclass(frozen=True, kw_only=True)
class Mechanics:
    """What a step needs besides net and data."""

    privacy: Privacy
    noise_multiplier: float
    expected_batch: int
    """records of a step on average, by which their sum is divided"""
    logged: Sequence[str]
    """names of the sums that the loss gives"""
    secret: Secret
    ledger: Ledger | None
    """the main process's; the others have none"""


def private_step(trainer: Trainer, loss_of: LossOf, mechanics: Mechanics) -> Step[Any]:
    """The step for `knorm.training.loop.train_epoch`.

    `loss_of` returns the sum of the losses of a batch's samples, as for `gradient_step`; with V
    views a batch holds every record's V views one after the other.
    """
    privacy, accelerator = mechanics.privacy, trainer.accelerator
    recorder = Recorder(trainer.net, RULES, thin=privacy.ghost)
    std = mechanics.noise_multiplier * privacy.max_norm if mechanics.noise_multiplier else 0.0

    def step(window: Window[Any]) -> Sums:
        parameters = dict(trainable(trainer.net))
        sums = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in parameters.items()}
        totals = no_sums(mechanics.logged, accelerator.device)
        for place, batch in enumerate(window.batches):
            # dropout is a function of the global chunk, not of the rank that computes it
            chunk = accelerator.process_index + place * accelerator.num_processes
            mechanics.secret.seed_torch("dropout", trainer.step, chunk)
            with recorder.recording(batch.real // privacy.views) as tape, accelerator.autocast():
                loss, logged = loss_of(recorder, batch)
            (loss / privacy.views).backward()
            clipped = clipped_sums(recorder.gradients(tape), privacy.clipping, privacy.max_norm)
            for name, value in clipped.sums.items():
                sums[name] += value
            # a chunk whose sum is no number has no part in the logged loss, which must stop no run
            for name, value in (logged | {"dropped": clipped.dropped}).items():
                totals[name] = totals[name] + value.detach().nan_to_num(0.0, 0.0, 0.0)
        released = release(sums, trainer, mechanics, std)
        for name, parameter in parameters.items():
            parameter.grad = (released[name] / mechanics.expected_batch).to(parameter.dtype)
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()
        return totals if privacy.train_metrics else public(mechanics, accelerator)

    return step


def release(
    sums: dict[str, Tensor], trainer: Trainer, mechanics: Mechanics, std: float
) -> dict[str, Tensor]:
    """The sums of all ranks with noise, the same bits on every rank."""
    accelerator = trainer.accelerator
    flat = torch.cat([value.flatten() for value in sums.values()])
    if accelerator.num_processes > 1:
        flat = torch.as_tensor(accelerator.reduce(flat, "sum"))
    if mechanics.ledger is not None:
        mechanics.ledger.append(trainer.step)
        whole = apart(flat, sums)
        noisy = add_noise(whole, mechanics.secret, trainer.step, std)
        flat = torch.cat([value.flatten() for value in noisy.values()])
    if accelerator.num_processes > 1:
        flat = torch.as_tensor(broadcast(flat))
    return apart(flat, sums)


def apart(flat: Tensor, like: dict[str, Tensor]) -> dict[str, Tensor]:
    """The parts of a flat tensor, in the shapes of `like`."""
    parts = flat.split([value.numel() for value in like.values()])
    return {
        name: part.view(value.shape)
        for part, (name, value) in zip(parts, like.items(), strict=True)
    }


def no_sums(logged: Sequence[str], device: torch.device) -> Sums:
    """The sums of a step in which this rank has no record."""
    return {name: torch.zeros((), device=device) for name in (*logged, "dropped")}


def public(mechanics: Mechanics, accelerator: Any) -> Sums:
    """In place of sums over the records: how many they are on average, for the speed."""
    share = mechanics.expected_batch / accelerator.num_processes
    return {"count": torch.tensor(share, device=accelerator.device)}
