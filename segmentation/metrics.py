"""Numbers of segmentation from one int64 matrix of pixel counts, as in Cityscapes' own script.

The matrix is (K, K + 1): the true class by row, the predicted one by column, and in the last column
pixels that were taken for none of the K classes. Pixels without a true class are not in it. Sums of
such matrices are exact, so numbers depend neither on processes nor on the sizes of images.

`evalPixelLevelSemanticLabeling.py` of cityscapesScripts decides what is counted: a pixel of a class
taken for none, or for a class that is not evaluated, is missed; classes without a pixel in truth
and prediction have no number and are left out of means. Its instance-weighted scores (nIoU) need
the instances' own label files and are not made here.
"""

from collections.abc import Iterable, Sequence
from math import isnan, nan
from typing import Any

import torch
from torch import Tensor

from segmentation.classes import IGNORE, Classes


def confusion_matrix(predicted: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """(K, K + 1) int64 of train numbers of the same shape; predictions >= K are of no class.

    Labels are 0 to K - 1 or `IGNORE`; raises ValueError for others.
    """
    columns = num_classes + 1
    cells = labels.long() * columns + predicted.long().clamp(max=num_classes)
    ignored = num_classes * columns  # one cell more, for all that does not count
    cells = torch.where(labels == IGNORE, ignored, cells).flatten()
    counts = torch.bincount(cells, minlength=ignored + 1)
    if len(counts) > ignored + 1:
        raise ValueError(f"labels must be below {num_classes} or {IGNORE}, got {labels.max()}")
    return counts[:ignored].view(num_classes, columns)


def class_iou(matrix: Tensor) -> list[float]:
    """Intersection over union of every class, nan for those without a pixel."""
    right, true = matrix.diagonal(), matrix.sum(1)
    taken = matrix[:, :-1].sum(0)
    return _ratios(right, true + taken - right)


def class_accuracy(matrix: Tensor) -> list[float]:
    """The part of every class's pixels that was found, nan for classes without a true pixel."""
    return _ratios(matrix.diagonal(), matrix.sum(1))


def pixel_accuracy(matrix: Tensor) -> float:
    """The part of all labeled pixels that is right; nan without any."""
    return _ratios(matrix.diagonal().sum()[None], matrix.sum()[None])[0]


def category_iou(matrix: Tensor, categories: Sequence[str]) -> dict[str, float]:
    """IoU of every category, in which classes of the same category may be taken for each other.

    `categories` has one for each class; they come in the order of their first classes.
    """
    names = list(dict.fromkeys(categories))
    column = torch.tensor([names.index(name) for name in categories] + [len(names)])
    merged = matrix.new_zeros(len(names), matrix.shape[1]).index_add(0, column[:-1], matrix)
    merged = merged.new_zeros(len(names), len(names) + 1).index_add(1, column, merged)
    return dict(zip(names, class_iou(merged), strict=True))


def mean_of_known(values: Iterable[float]) -> float:
    """The mean of those that are numbers, summed one by one as the script does; nan without any."""
    known = [value for value in values if not isnan(value)]
    return sum(known) / len(known) if known else nan


def summary(matrix: Tensor, classes: Classes) -> dict[str, float]:
    """The numbers of a split, fractions; `category_miou` only for classes that have categories."""
    numbers = {
        "miou": mean_of_known(class_iou(matrix)),
        "pixel_accuracy": pixel_accuracy(matrix),
        "mean_accuracy": mean_of_known(class_accuracy(matrix)),
    }
    if classes.categories:
        numbers["category_miou"] = mean_of_known(category_iou(matrix, classes.categories).values())
    return numbers


def class_table(matrix: Tensor, classes: Classes) -> list[dict[str, Any]]:
    """Of every class its name, IoU, accuracy, true pixels and pixels taken for it, for tables."""
    columns = (
        classes.names,
        class_iou(matrix),
        class_accuracy(matrix),
        matrix.sum(1).tolist(),
        matrix[:, :-1].sum(0).tolist(),
    )
    names = ("class", "iou", "accuracy", "pixels", "predicted_pixels")
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _ratios(parts: Tensor, wholes: Tensor) -> list[float]:
    """In float64; nan where there is no whole."""
    pairs = zip(parts.tolist(), wholes.tolist(), strict=True)
    return [part / whole if whole else nan for part, whole in pairs]
