"""Evaluation of a split, image by image: exact for every number of processes and all sizes.

Every image is computed once, on one rank, by windows that depend on its size alone; counts are
summed as integers, and values of images are put in the order of the data set.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from operator import itemgetter
from typing import NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from knorm.training.evaluate import share_buffers, sum_over_ranks
from knorm.training.seeds import seed_torch
from segmentation.classes import IGNORE, Classes
from segmentation.inference import probabilities
from segmentation.inference_config import Inference
from segmentation.metrics import confusion_matrix, summary

LEAST = torch.finfo(torch.float32).tiny  # a chance of 0 counts as this: no loss is infinite
NAMES = ("loss", "accuracy", "pixels")


class Evaluated(NamedTuple):
    """What was counted on a split, the same on every rank."""

    matrix: Tensor
    """(K, K + 1) int64, see `metrics.confusion_matrix`"""
    images: dict[str, Tensor]
    """(N,) float64 in the order of the data set: loss (cross-entropy, mean over the pixels with a
    label), accuracy (part of these that is right) and pixels (their number); 0 without any"""
    first: Sequence[Tensor] = ()
    """(H, W) uint8 train numbers that the first images were taken for"""

    def numbers(self, classes: Classes) -> dict[str, float]:
        """The split's numbers; `loss` is the mean over images that have labels."""
        losses = self.images["loss"][self.images["pixels"] > 0]
        return {"loss": losses.mean().item()} | summary(self.matrix, classes)


def evaluate_images(
    accelerator: Accelerator,
    net: nn.Module,
    images: Iterable[tuple[int, Tensor, Tensor]],
    inputs_of: Callable[[Tensor], Tensor],
    *,
    num_images: int,
    num_classes: int,
    settings: Inference,
    seed: int,
    least: int = 1,
    kept: int = 0,
) -> Evaluated:
    """Counts and values of a split of `num_images`, and what the `kept` first are taken for.

    `images` are this rank's (number, image (3, H, W) uint8, labels (H, W)); `inputs_of` makes what
    the net takes of images (1, 3, H, W) on the device. Torch is seeded with (seed, number) and left
    as it was, and so is the mode of the net, which takes no sides below `least`.
    """
    share_buffers(accelerator, net)
    table = torch.zeros(num_images, len(NAMES), dtype=torch.float64)
    matrix = torch.zeros(num_classes, num_classes + 1, dtype=torch.long)
    first: list[tuple[int, Tensor]] = []
    with evaluating(net):
        for number, image, labels in images:
            inputs = inputs_of(image[None].to(accelerator.device))
            with drawing(accelerator, seed, number):
                chances = probabilities(net, inputs, settings, num_classes, least)[0]
            labels, predicted = labels.to(accelerator.device).long(), chances.argmax(0)
            matrix += confusion_matrix(predicted, labels, num_classes).cpu()
            table[number] = torch.tensor(_values(chances, labels), dtype=torch.float64)
            if number < kept:
                first.append((number, predicted.to(torch.uint8).cpu()))
    columns = sum_over_ranks(accelerator, table).unbind(1)
    return Evaluated(
        sum_over_ranks(accelerator, matrix),
        dict(zip(NAMES, columns, strict=True)),
        [predicted for _, predicted in sorted(gather_object(first), key=itemgetter(0))],
    )


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """The net in evaluation, and afterwards as it was."""
    was_training = net.training
    net.eval()
    try:
        yield
    finally:
        net.train(was_training)


@contextmanager
def drawing(accelerator: Accelerator, *words: int) -> Iterator[None]:
    """Where a net is asked: torch is seeded with `words`, and afterwards as it was."""
    devices = [accelerator.device] if accelerator.device.type == "cuda" else []
    with torch.no_grad(), torch.random.fork_rng(devices), accelerator.autocast():
        seed_torch(*words)
        yield


def _values(chances: Tensor, labels: Tensor) -> tuple[float, float, int]:
    """`NAMES` of chances (K, H, W) and labels (H, W)."""
    valid = labels != IGNORE
    true = chances.gather(0, labels.masked_fill(~valid, 0)[None])[0]
    losses = -true.clamp_min(LEAST).log() * valid
    right = chances.argmax(0) == labels
    pixels = int(valid.sum())
    count = max(pixels, 1)
    return losses.sum().item() / count, right.sum().item() / count, pixels
