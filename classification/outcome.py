"""Pictures and tables of a run's test split."""

import csv
import io
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from knorm.training.pictures import draw_confusion
from knorm.training.run import Run


def write_pictures(run: Run, matrix: Tensor, weights: str) -> dict[str, Any]:
    """The confusion matrix as picture and table; the numbers of each class."""
    classes = run.facts["classes"]
    title = f"test split, {int(matrix.sum())} images, {weights} weights"
    draw_confusion(matrix, classes, run.folder / "confusion.png", title)
    run.write("confusion.csv", confusion_csv(matrix, classes))
    numbers = class_numbers(matrix, classes)
    return {"per_class": {"split": "test", "weights": weights, "classes": numbers}}


def class_numbers(matrix: Tensor, classes: Sequence[str]) -> list[dict[str, Any]]:
    """For each class its samples, how many were right, and what the others were most taken for."""
    numbers = []
    for number, name in enumerate(classes):
        row = matrix[number].clone()
        count, correct = int(row.sum()), int(row[number])
        row[number] = 0
        wrong = int(row.argmax()) if row.any() else None
        numbers.append(
            {
                "class": name,
                "count": count,
                "correct": correct,
                "accuracy": correct / count if count else None,
                "taken_for": None if wrong is None else classes[wrong],
                "taken_for_count": 0 if wrong is None else int(row[wrong]),
            }
        )
    return numbers


def confusion_csv(matrix: Tensor, classes: list[str]) -> str:
    """True classes as rows, predicted classes as columns."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["true \\ predicted", *classes])
    for name, counts in zip(classes, matrix.tolist(), strict=True):
        writer.writerow([name, *counts])
    return text.getvalue()
