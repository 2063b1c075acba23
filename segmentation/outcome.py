"""Pictures and tables of a run's evaluations."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from knorm.training.run import Run
from segmentation.classes import Classes
from segmentation.metrics import class_table
from segmentation.pictures import Example, draw_class_confusion, draw_class_iou, draw_examples

EXAMPLES = "examples"  # folder of the pictures of validations


def write_examples(folder: Path, epoch: int, examples: Sequence[Example], classes: Classes) -> None:
    """The picture of an epoch's validation."""
    if examples:
        (folder / EXAMPLES).mkdir(exist_ok=True)
        draw_examples(examples, classes, folder / EXAMPLES / f"epoch-{epoch:04d}.png")


def write_pictures(
    run: Run, matrix: Tensor, examples: Sequence[Example], classes: Classes, weights: str
) -> dict[str, Any]:
    """Examples, IoU of the classes and their confusion, of the test split."""
    title = f"test split, {weights} weights"
    if examples:
        draw_examples(examples, classes, run.folder / "examples.png")
    draw_class_iou(matrix, classes, run.folder / "iou.png", title)
    draw_class_confusion(matrix, classes, run.folder / "confusion.png", title)
    run.write("confusion.csv", confusion_csv(matrix, classes))
    rows = class_table(matrix, classes)
    return {"per_class": {"split": "test", "weights": weights, "classes": rows}}


def confusion_csv(matrix: Tensor, classes: Classes) -> str:
    """Pixels: true classes as rows, predicted classes as columns, none of them last."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["true \\ predicted", *classes.names, "no class"])
    for name, counts in zip(classes.names, matrix.tolist(), strict=True):
        writer.writerow([name, *counts])
    return text.getvalue()
