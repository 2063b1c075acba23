"""Canaries: records of an audit, each in the training data or not by a coin of its own.

image     random pixels and a random class; scored by how much its loss fell, which is all that
          whoever holds the weights can see (to the first order of the learning rate it is the sum
          over the steps of the image's gradient times what the step released)
gradient  a record whose gradient is one coordinate, a parameter of its own, and larger than any
          clipping lets through; nothing but the noise hides it, and the inner product of its
          clipped gradient with what a step releases is that coordinate

Both go through the same sampling, gradients, clipping, noise and ledger as any image. Their coins
are drawn from the secret, as the masks are, so that nothing else of the run tells them.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from classification.data import Batch, ImageData
from classification.readers import ResidentSplit
from classification.task import Classification
from knorm.training.mistakes import UserMistakeError
from privacy.secret import Secret
from privacy.step import LossOf

LOUD = 100.0  # a gradient canary's gradient before clipping, over the norm that it is clipped to


@dataclass(frozen=True)
class Canaries:
    """All that there are, and the coins."""

    pixels: Tensor
    """(M, C, H, W) uint8, of image canaries"""
    labels: Tensor
    """(M,)"""
    images_in: np.ndarray
    """(M,) bool: which of them are trained on"""
    gradients_in: np.ndarray
    """the same of gradient canaries, which are known by their number"""


def draw_canaries(
    data: ImageData, secret: Secret, *, images: int, gradients: int, seed: int
) -> Canaries:
    """Canaries for the training images of `data`; `seed` is of pixels and classes, public."""
    generator = torch.Generator().manual_seed(seed)
    shape = data.splits["train"].images(torch.zeros(1, dtype=torch.long)).shape[1:]
    return Canaries(
        pixels=torch.randint(0, 256, (images, *shape), generator=generator, dtype=torch.uint8),
        labels=torch.randint(0, len(data.classes), (images,), generator=generator),
        images_in=coins(secret, "image", images),
        gradients_in=coins(secret, "gradient", gradients),
    )


def coins(secret: Secret, kind: str, count: int) -> np.ndarray:
    """(count,) bool, each by itself as often true as false."""
    return secret.words(count, "canary", kind) % 2 == 1


def with_canaries(data: ImageData, canaries: Canaries) -> ImageData:
    """The training images, and the canaries that are in.

    Gradient canaries are black images with a class of their own: the classes there are, and their
    number.

    Raises:
        UserMistakeError: the images are not in memory.
    """
    split = data.splits["train"]
    if not isinstance(split, ResidentSplit):
        raise UserMistakeError("an audit needs all images in memory; give data.resident true")
    images = torch.from_numpy(np.flatnonzero(canaries.images_in))
    numbers = torch.from_numpy(np.flatnonzero(canaries.gradients_in))
    pixels, device = canaries.pixels[images], split.device
    black = pixels.new_zeros(len(numbers), *pixels.shape[1:])
    labels = [split.labels, canaries.labels[images], len(data.classes) + numbers]
    train = ResidentSplit(
        torch.cat([part.to(device) for part in (split.pixels, pixels, black)]),
        torch.cat([part.to(device) for part in labels]),
    )
    return replace(data, splits=data.splits | {"train": train})


class MarkedNet(nn.Module):
    """A net with a mark, one number, for every gradient canary.

    Given which canary each record is, (N, count) of ones and zeros, all zeros for images, it
    answers an image with the net's logits, and a canary with zeros, the first of which falls with
    the mark by `size` times its change.
    """

    def __init__(self, net: nn.Module, count: int, size: float) -> None:
        super().__init__()
        self.net, self.size = net, size
        self.marks = nn.Parameter(next(net.parameters()).new_zeros(count))

    def forward(self, images: Tensor, choice: Tensor) -> Tensor:
        logits = self.net(images)
        own = F.linear(choice, self.marks[None])  # (N, 1)
        signal = self.size * (own.detach() - own)  # always 0, so that the loss stays linear in it
        marked = F.pad(signal, (0, logits.shape[1] - 1)).to(logits.dtype)
        return torch.where(choice.any(1, keepdim=True), marked, logits)


def loss_with_canaries(task: Classification, count: int) -> LossOf:
    """The task's loss, in which `count` gradient canaries are of the first class."""

    def loss_of(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        numbers = batch.labels - task.num_classes
        labels = batch.labels.where(numbers < 0, 0)
        ordinary = batch._replace(labels=labels, targets=labels)
        choice = F.one_hot(numbers.clamp(min=-1) + 1, count + 1)[:, 1:].to(batch.inputs.dtype)
        return task.loss(cast(nn.Module, partial(model, choice=choice)), ordinary)

    return loss_of


class Watch:
    """What every step releases of the marks, as whoever sees each step would write it down."""

    def __init__(self, net: MarkedNet, optimizer: Optimizer) -> None:
        self.net, self.steps = net, list[Tensor]()
        optimizer.register_step_pre_hook(self._note)

    def _note(self, *_: Any) -> None:
        assert self.net.marks.grad is not None
        self.steps.append(self.net.marks.grad.detach().cpu().clone())

    def released(self) -> Tensor:
        """(steps, canaries)"""
        return torch.stack(self.steps)


def totals(released: Tensor) -> np.ndarray:
    """Scores of gradient canaries: what was released of each, in all steps together."""
    return released.double().sum(0).numpy()


def differences(released: Tensor) -> np.ndarray:
    """Scores that take off noise used twice: the difference of the two steps most alike.

    Equal noise leaves zeros, but for canaries that were in one of the steps.
    """
    nearest, pair = torch.inf, (0, 0)
    for step in range(1, len(released)):
        distances = (released[:step] - released[step]).norm(dim=1)
        if distances.min() < nearest:
            nearest, pair = float(distances.min()), (int(distances.argmin()), step)
    return (released[pair[0]] - released[pair[1]]).abs().double().numpy()


@torch.no_grad()
def losses(
    net: nn.Module, canaries: Canaries, data: ImageData, task: Classification, batch_size: int
) -> np.ndarray:
    """(M,) losses of the image canaries, as in evaluation."""
    was_training, found = net.training, []
    net.eval()
    for pixels, labels in zip(
        canaries.pixels.split(batch_size), canaries.labels.split(batch_size), strict=True
    ):
        device = data.accelerator.device
        inputs, labels = data.inputs(pixels.to(device)), labels.to(device)
        values = task.per_sample(net, Batch(inputs, labels, labels, len(labels)))
        found.append(values["loss"].cpu())
    net.train(was_training)
    return torch.cat(found).double().numpy()
