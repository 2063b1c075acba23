"""What segmentation is: the loss of images, and what makes weights the best."""

import math

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from knorm.training.loop import Sums, Window
from knorm.training.work import Numbers
from segmentation.classes import IGNORE
from segmentation.data import Batch
from segmentation.losses import Criterion, Output

BACKBONE = "features."  # before the names of the parameters that are not the heads'


def loss_of(
    criterion: Criterion, model: nn.Module, batch: Batch, name: str = "loss"
) -> tuple[Tensor, Sums]:
    """Losses of the batch's real images, summed; sums over them for the log, theirs as `name`."""
    output, labels = model(batch.inputs), batch.labels[: batch.real]
    count = batch.inputs.new_full((), batch.real)
    if not batch.real:
        none = torch.stack([part.sum() for part in _parts(output)]).sum() * 0
        return none, {name: none, "pixel_accuracy": count, "count": count}
    losses = criterion(output, labels, batch.mean_weight)
    logits = _parts(output)[0].detach()[: batch.real]
    right = (logits.argmax(1) == labels).sum((1, 2))
    accuracy = right / (labels != IGNORE).sum((1, 2)).clamp_min(1)
    loss = losses.sum()
    return loss, {name: loss, "pixel_accuracy": accuracy.sum(), "count": count}


def _parts(output: Output) -> list[Tensor]:
    return [output] if isinstance(output, Tensor) else list(output.values())


def weighed(window: Window[Batch], criterion: Criterion, accelerator: Accelerator) -> Window[Batch]:
    """The window, whose batches know the mean weight of an image of the whole step."""
    if not criterion.needs_weight:
        return window
    device = accelerator.device
    dtype = torch.float32 if device.type == "mps" else torch.float64
    total = torch.zeros((), dtype=dtype, device=device)
    for batch in window.batches:
        total += criterion.weights(batch.labels[: batch.real]).sum()
    total = torch.as_tensor(accelerator.reduce(total, "sum"))
    mean = (total / window.size).float()
    return window._replace(batches=[b._replace(mean_weight=mean) for b in window.batches])


def score(numbers: Numbers) -> tuple[float, float]:
    """What makes weights the best: mean IoU, and between equals the lower loss."""
    loss = numbers["loss"]
    return numbers["miou"], -loss if math.isfinite(loss) else -math.inf
