"""Physical batches: how many images' gradients are computed at once, found where memory is short.

What a step releases depends on its chunks: in its last bits, and with dropout, which every chunk
draws for itself, in more. A step that is done again after a crash must release the same, so the
number is found once, before the first step, and stands in the run folder.
"""

from collections.abc import Callable
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor

from knorm.training.files import read_json
from knorm.training.loop import Trainer
from knorm.training.mistakes import UserMistakeError
from knorm.training.run import Run, to_json
from privacy.clipping import clipped_sums
from privacy.config import Privacy
from privacy.ledger import FILE as LEDGER
from privacy.per_record import Recorder, trainable
from privacy.rules import RULES
from privacy.step import LossOf

FILE = "physical_batch.json"
MOST = 256
RESERVED = 5  # tensors of each parameter's size: sum, noise, gradient, two moments


def physical_batch(
    privacy: Privacy,
    run: Run,
    trainer: Trainer,
    loss_of: LossOf,
    make_batch: Callable[[int, int], Any],
) -> int:
    """Images that are computed at once: as given, as in the run folder, or what fits every rank.

    `make_batch` gives so many records (with their views) drawn from a seed.

    Raises:
        UserMistakeError: Not even one record fits, or the run has begun and the number is lost.
    """
    if privacy.physical_batch is not None:
        return privacy.physical_batch
    known: list[Any] = [noted(run) if run.writes else None]
    broadcast_object_list(known)
    if known[0] is not None:
        return known[0]
    found = largest_that_fits(privacy, trainer, loss_of, make_batch)
    sizes = run.accelerator.gather(torch.tensor([found], device=run.accelerator.device))
    size = int(torch.as_tensor(sizes).min())
    if size == 0:
        raise UserMistakeError(
            f"one image with its {privacy.views} view(s) does not fit into memory: take a smaller "
            "net, smaller images or fewer privacy.views"
        )
    run.write(FILE, to_json({"physical_batch": size}) + "\n")
    return size


def noted(run: Run) -> int | None:
    """The number in the run folder, None where the run has not begun."""
    path = run.folder / FILE
    if path.exists():
        return read_json(path, {"physical_batch": int})["physical_batch"]
    if (run.folder / LEDGER).exists():
        raise UserMistakeError(
            f"{path} is missing, without which steps cannot be done again as they were; put it back"
        )
    return None


def largest_that_fits(
    privacy: Privacy, trainer: Trainer, loss_of: LossOf, make_batch: Callable[[int, int], Any]
) -> int:
    """`MOST` images, or a half, a quarter, ... down to one record's views; 0 where none fits."""
    records = max(1, MOST // privacy.views)
    while records and not fits(records, privacy, trainer, loss_of, make_batch):
        records //= 2
    return records * privacy.views


def fits(
    records: int,
    privacy: Privacy,
    trainer: Trainer,
    loss_of: LossOf,
    make_batch: Callable[[int, int], Any],
) -> bool:
    """Whether memory suffices for the gradients of so many made-up records, and the optimizer."""
    trainer.net.train()
    try:
        recorder = Recorder(trainer.net, RULES, thin=privacy.ghost)
        reserve: list[Tensor] = [
            torch.zeros_like(p) for _, p in trainable(trainer.net) for _ in range(RESERVED)
        ]
        batch = make_batch(records, 0)
        with recorder.recording(records) as tape, trainer.accelerator.autocast():
            loss, _ = loss_of(recorder, batch)
        (loss / privacy.views).backward()
        clipped_sums(recorder.gradients(tape), privacy.clipping, privacy.max_norm)
        del reserve
    except RuntimeError as error:
        if not should_reduce_batch_size(error):
            raise
        enough = False
    else:
        enough = True
    clear_device_cache(garbage_collection=True)
    return enough
