"""Evaluation of a split, image by image: exact for every number of processes and all sizes.

Every image is computed once, on one rank, by windows that depend on its size alone; counts are
summed as integers, and values of images are put in the order of the data set.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from knorm.training.evaluate import share_buffers, sum_over_ranks
from knorm.training.seeds import seed_torch
from segmentation.classes import IGNORE, Classes
from segmentation.data import SegmentationData
from segmentation.inference import probabilities
from segmentation.inference_config import Inference
from segmentation.metrics import confusion_matrix, summary
from segmentation.pictures import Example

LEAST = torch.finfo(torch.float32).tiny  # a chance of 0 counts as this: no loss is infinite
NAMES = ("loss", "accuracy", "pixels")


class Evaluated(NamedTuple):
    """What was counted on a split, the same on every rank."""

    matrix: Tensor
    """(K, K + 1) int64, see `metrics.confusion_matrix`"""
    images: dict[str, Tensor]
    """(N,) float64 in the order of the data set: loss (cross-entropy, mean over the pixels with a
    label), accuracy (part of these that is right) and pixels (their number); 0 without any"""

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
) -> Evaluated:
    """Counts and values of a split of `num_images`.

    `images` are this rank's (number, image (3, H, W) uint8, labels (H, W)); `inputs_of` makes what
    the net takes of images (1, 3, H, W) on the device. Torch is seeded with (seed, number) and left
    as it was, and so is the mode of the net.
    """
    share_buffers(accelerator, net)
    table = torch.zeros(num_images, len(NAMES), dtype=torch.float64)
    matrix = torch.zeros(num_classes, num_classes + 1, dtype=torch.long)
    with evaluating(net):
        for number, image, labels in images:
            inputs = inputs_of(image[None].to(accelerator.device))
            with drawing(accelerator, seed, number):
                chances = probabilities(net, inputs, settings, num_classes)[0]
            labels = labels.to(accelerator.device).long()
            matrix += confusion_matrix(chances.argmax(0), labels, num_classes).cpu()
            table[number] = torch.tensor(_values(chances, labels), dtype=torch.float64)
    columns = sum_over_ranks(accelerator, table).unbind(1)
    return Evaluated(sum_over_ranks(accelerator, matrix), dict(zip(NAMES, columns, strict=True)))


def examples_of(
    accelerator: Accelerator,
    net: nn.Module,
    data: SegmentationData,
    split: str,
    count: int,
    *,
    settings: Inference,
    seed: int,
) -> list[Example]:
    """The first images of a split and what the net makes of them, as `evaluate_images` asks it."""
    whole, found, num_classes = data.splits[split], list[Example](), len(data.classes.names)
    with evaluating(net):
        for number in range(min(count, len(whole))):
            image, labels = whole.read(number)
            inputs = data.inputs(image[None].to(accelerator.device))
            with drawing(accelerator, seed, number):
                chances = probabilities(net, inputs, settings, num_classes)[0]
            found.append(Example(whole.names[number], image, labels, chances.argmax(0).cpu()))
    return found


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
