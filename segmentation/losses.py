"""Losses of images: (N,) values whose mean over the images of a batch is what training descends.

Pixels labeled `IGNORE` have no part in anything; an image without any other counts as 0.

With `loss.mean` image, a value depends on its image alone. Then any cutting of a batch into
processes and passes trains alike, and one image bounds what its loss can do, as private training
needs. With batch, cross-entropy is the sum over all pixels of the batch by the sum of their
weights; that sum follows from the labels alone (`pixel_weights`), so it can be had before the first
pass. Which pixels are hard, and Dice, are then judged over the images of one pass of one process
together, as in other code, and depend on the cutting.

Cross-entropy: as `torch.nn.CrossEntropyLoss` with class weights: the mean is by the sum of the
pixels' weights. Hard pixels (OHEM): as in HRNet's `lib/core/criterion.py` those whose true class
has a probability below the threshold, at least `min_kept`, and the mean over their number; mmseg
selects the same and divides by the number of all pixels. `min_kept` is for each image, as in mmseg;
HRNet counts it for the images of a process together. Pixels just as certain as the last one kept
are kept too, and an image of no more than `min_kept` pixels keeps all (HRNet drops the surest).
Dice: 1 - 2 sum(p g) / (sum(p^2) + sum(g^2)) by Milletari et al. (arXiv:1606.04797), the mean over
the classes that the labels hold.
"""

from collections.abc import Mapping
from math import inf, log
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from segmentation.classes import IGNORE
from segmentation.loss_config import Loss

Output = Tensor | Mapping[str, Tensor]
"""logits (N, K, H, W), or those of both heads as "out" and "aux\""""


class Terms(NamedTuple):
    """Of every image what the pixels' losses sum to, and the weight to divide it by."""

    sums: Tensor
    """(N,)"""
    weights: Tensor
    """(N,)"""

    def means(self) -> Tensor:
        """(N,) of every image; 0 for those without weight."""
        return self.sums / _divisor(self.weights)


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Terms:
    """Of logits (N, K, H, W) and labels (N, H, W)."""
    losses = _pixel_losses(logits, labels, class_weights, label_smoothing)
    return Terms(losses.sum((1, 2)), pixel_weights(labels, class_weights).to(losses.dtype))


def hard_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    *,
    threshold: float,
    min_kept: int,
    per_image: bool = True,
) -> Terms:
    """`cross_entropy` of the hard pixels, whose number is the weight of an image.

    With `per_image` false the `N * min_kept` least certain pixels of all images count in any case.
    """
    losses = _pixel_losses(logits, labels, class_weights, label_smoothing)
    kept = hard_pixels(logits, labels, threshold, min_kept, per_image)
    return Terms((losses * kept).sum((1, 2)), kept.sum((1, 2)).to(losses.dtype))


@torch.no_grad()
def hard_pixels(
    logits: Tensor, labels: Tensor, threshold: float, min_kept: int, per_image: bool = True
) -> Tensor:
    """(N, H, W), whether a pixel is hard."""
    groups = len(labels) if per_image else 1
    valid = (labels != IGNORE).view(groups, -1)
    surprise = _pixel_losses(logits, labels).view(groups, -1).masked_fill(~valid, -1)
    kept = valid.sum(1, keepdim=True).clamp(1, min_kept * len(labels) // groups)
    least = surprise.sort(dim=1, descending=True).values.gather(1, kept - 1)
    bound = -log(threshold) if threshold > 0 else inf
    return (((surprise > bound) | (surprise >= least)) & valid).view_as(labels)


def dice(logits: Tensor, labels: Tensor, per_image: bool = True) -> Tensor:
    """(N,) losses in [0, 1]; with `per_image` false the same for all, of their pixels together."""
    classes = torch.arange(logits.shape[1], device=labels.device)
    truth = labels[:, None] == classes[:, None, None]
    chances = _wide(logits).softmax(1)
    overlap = (chances * truth).sum((2, 3))
    chances = (chances.square() * (labels != IGNORE)[:, None]).sum((2, 3))
    area = truth.sum((2, 3))
    if not per_image:
        overlap, chances, area = (part.sum(0, keepdim=True) for part in (overlap, chances, area))
    present = area > 0
    losses = (1 - 2 * overlap / _divisor(chances + area)) * present
    return (losses.sum(1) / _divisor(present.sum(1))).expand(len(labels))


def pixel_weights(labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """(N,) how many pixels of each image are labeled, or the sum of their classes' weights."""
    valid = labels != IGNORE
    if class_weights is None:
        return valid.sum((1, 2))
    return (class_weights[labels.masked_fill(~valid, 0)] * valid).sum((1, 2))


class Criterion:
    """The loss that the settings describe, for nets with and without an auxiliary head."""

    def __init__(self, settings: Loss, num_classes: int, device: torch.device | str = "cpu"):
        settings.check_classes(num_classes)
        self.settings, self.class_weights = settings, None
        if settings.class_weights is not None:
            self.class_weights = torch.tensor(settings.class_weights, device=device)

    @property
    def needs_weight(self) -> bool:
        """Whether the loss is a mean over the pixels of a batch, whose weight is known before."""
        return self.settings.mean == "batch" and self.settings.ohem_threshold is None

    def weights(self, labels: Tensor) -> Tensor:
        """(N,) what each image weighs in a mean over the pixels of a batch."""
        return pixel_weights(labels, self.class_weights)

    def __call__(
        self, output: Output, labels: Tensor, mean_weight: Tensor | float | None = None
    ) -> Tensor:
        """(n,) losses of the first n images, those that have labels (n, H, W).

        `mean_weight` is the mean of `weights` over the images of the whole batch, all processes and
        passes together, where `needs_weight`; None: over these n, as if they were the batch.
        """
        if isinstance(output, Tensor):
            return self._head(output, labels, mean_weight)
        return self._head(output["out"], labels, mean_weight) + self.settings.aux * self._head(
            output["aux"], labels, mean_weight
        )

    def _head(self, logits: Tensor, labels: Tensor, mean_weight: Tensor | float | None) -> Tensor:
        settings, logits = self.settings, logits[: len(labels)]
        per_image = settings.mean == "image"
        common = (logits, labels, self.class_weights, settings.label_smoothing)
        if settings.ohem_threshold is None:
            terms = cross_entropy(*common)
        else:
            terms = hard_cross_entropy(
                *common,
                threshold=settings.ohem_threshold,
                min_kept=settings.ohem_min_kept,
                per_image=per_image,
            )
        if per_image:
            losses = terms.means()
        else:
            known = mean_weight if mean_weight is not None and self.needs_weight else None
            mean = terms.weights.mean() if known is None else known
            losses = terms.sums / _divisor(torch.as_tensor(mean, device=labels.device))
        if settings.dice:
            losses = losses + settings.dice * dice(logits, labels, per_image)
        return losses


def _pixel_losses(
    logits: Tensor,
    labels: Tensor,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """(N, H, W), 0 where pixels are ignored."""
    logits = _wide(logits)
    return F.cross_entropy(
        logits,
        labels,
        weight=None if class_weights is None else class_weights.to(logits.dtype),
        ignore_index=IGNORE,
        reduction="none",
        label_smoothing=label_smoothing,
    )


def _wide(logits: Tensor) -> Tensor:
    """At least float32."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def _divisor(weights: Tensor) -> Tensor:
    """1 instead of 0: what it divides is then 0 too."""
    return weights.masked_fill(weights == 0, 1)
