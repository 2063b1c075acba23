"""Pictures of segmentation: maps of classes beside images, and bars of IoU; see also
`knorm.training.pictures`."""

from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from knorm.training.pictures import DPI, draw_confusion, new_figure
from segmentation.classes import IGNORE, Classes, Color
from segmentation.metrics import class_iou, confusion_matrix, mean_of_known

IGNORED, WRONG = (0, 0, 0), (230, 40, 40)  # colors
FADED = 0.35  # how much is left of the image's contrast where errors are shown on it
WIDTH = 4.2  # inches of a panel
AFTER_BARS = 101  # percent; where no bar and no line can be
PANELS = ("input", "truth", "prediction", "error")


class Example(NamedTuple):
    """An image and what a net makes of it."""

    name: str
    image: Tensor
    """(3, H, W) uint8"""
    labels: Tensor
    """(H, W) train numbers or `IGNORE`"""
    predicted: Tensor
    """(H, W) train numbers"""


def color_table(classes: Classes) -> np.ndarray:
    """(256, 3) uint8: the color of every train number, and of what is ignored."""
    table = np.full((IGNORE + 1, 3), IGNORED, dtype=np.uint8)
    table[: len(classes.colors)] = classes.colors
    return table


def colored(labels: Tensor, classes: Classes) -> np.ndarray:
    """(H, W, 3) uint8 of train numbers (H, W)."""
    return color_table(classes)[labels.cpu().numpy().astype(np.uint8)]


def errors(example: Example) -> np.ndarray:
    """(H, W, 3) uint8: wrong pixels red on the faded image, ignored ones black."""
    grey = example.image.cpu().double().mean(0).numpy()
    shown = np.repeat((255 - FADED * (255 - grey))[..., None], 3, axis=2).astype(np.uint8)
    labels, predicted = example.labels.cpu().numpy(), example.predicted.cpu().numpy()
    shown[(labels != predicted) & (labels != IGNORE)] = WRONG
    shown[labels == IGNORE] = IGNORED
    return shown


def draw_examples(examples: Sequence[Example], classes: Classes, path: Path) -> None:
    """A row for each example: input, truth, prediction and error, and below all colors by name."""
    from matplotlib.patches import Patch

    tallest = max(example.image.shape[1] / example.image.shape[2] for example in examples)
    panel = (WIDTH, WIDTH * min(tallest, 2) + 0.3)
    figure, grid = new_figure(len(PANELS) * len(examples), len(PANELS), panel=panel)
    for number, example in enumerate(examples):
        row = grid[number * len(PANELS) : (number + 1) * len(PANELS)]
        shown = (
            example.image.cpu().movedim(0, -1).numpy(),
            colored(example.labels, classes),
            colored(example.predicted, classes),
            errors(example),
        )
        for axes, pixels, title in zip(row, shown, _titles(example, classes), strict=True):
            axes.imshow(pixels, interpolation="auto")
            axes.set_title(title, fontsize=9)
            axes.set_axis_off()
    patches = [
        Patch(facecolor=_unit(color), edgecolor="0.5", label=name)
        for name, color in _legend(examples, classes).items()
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=min(len(patches), 11))
    figure.savefig(path, dpi=DPI)


def _legend(examples: Sequence[Example], classes: Classes) -> dict[str, Color]:
    """Name and color of all that the examples' maps show."""
    maps = [part.flatten() for one in examples for part in (one.labels, one.predicted)]
    there = torch.cat([part.cpu().long() for part in maps]).unique().tolist()
    colors = {classes.names[n]: classes.colors[n] for n in there if n != IGNORE}
    return colors | ({"ignored": IGNORED} if IGNORE in there else {}) | {"wrong": WRONG}


def draw_class_iou(matrix: Tensor, classes: Classes, path: Path, title: str = "") -> None:
    """A bar of each class's IoU, the best on top, in its color; a line at their mean.

    Classes without a pixel come last, without a bar.
    """
    percent = [100 * value for value in class_iou(matrix)]
    order = sorted(range(len(percent)), key=lambda number: _rank(percent[number]))
    figure, (axes,) = new_figure(1, 1, panel=(7, 1.2 + 0.28 * len(order)))
    for place, number in enumerate(order):
        value, color = percent[number], _unit(classes.colors[number])
        length, text = (0, "no pixel") if isnan(value) else (value, f"{value:.1f}")
        axes.barh(place, length, color=color, edgecolor="0.4", lw=0.6)
        axes.text(AFTER_BARS, place, text, va="center", fontsize=8)
    mean = mean_of_known(percent)
    if not isnan(mean):
        axes.axvline(mean, color="black", ls="--", lw=1, label=f"mean {mean:.2f} %")
        figure.legend(loc="outside lower center")
    axes.set_yticks(range(len(order)), [classes.names[number] for number in order])
    axes.set(xlim=(0, 112), xlabel="IoU, %", title=title)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    figure.savefig(path, dpi=DPI)


def draw_class_confusion(matrix: Tensor, classes: Classes, path: Path, split: str = "") -> None:
    """The matrix in thousandths of each true class: counts of pixels are too long for its cells."""
    pixels = matrix.sum(1, keepdim=True).clamp_min(1)
    thousandths = (1000 * matrix[:, :-1].double() / pixels).round().long()
    title = f"{split}: thousandths of the true class" if split else "thousandths of the true class"
    draw_confusion(thousandths, classes.names, path, title)


def _unit(color: Color) -> tuple[float, float, float]:
    """The color as matplotlib takes it."""
    red, green, blue = color
    return red / 255, green / 255, blue / 255


def _rank(percent: float) -> tuple[bool, float]:
    """For sorting: the highest first, then those that are no number."""
    return (True, 0.0) if isnan(percent) else (False, -percent)


def _titles(example: Example, classes: Classes) -> tuple[str, ...]:
    """Of an example's panels: its name, what is shown, and how good it is."""
    labels, predicted = example.labels.cpu(), example.predicted.cpu()
    matrix = confusion_matrix(predicted, labels, len(classes.names))
    wrong = int(matrix.sum() - matrix.diagonal().sum())
    share = 100 * wrong / max(int(matrix.sum()), 1)
    miou = 100 * mean_of_known(class_iou(matrix))
    return example.name, "truth", f"prediction: mIoU {miou:.1f} %", f"error: {share:.1f} %"
