"""What a run says of itself: its plan at the start, its numbers at the end."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from classification.config import Recipe
from classification.data import ImageData
from classification.evaluation import evaluate_split
from classification.task import Classification, swap_report
from classification.weights import Weights
from knorm.training.cost import count_macs, count_parameters, peak_memory
from knorm.training.environment import device_name
from knorm.training.folder import BEST, LAST, RESULT
from knorm.training.launch import strategy
from knorm.training.loop import Trainer
from knorm.training.pictures import draw_confusion, draw_curves
from knorm.training.report import in_time, write_report
from knorm.training.run import Run, to_json

SOURCE, SWAP = "source.json", "swap.txt"
SCORES = ("top1", "top1_flip", "top5", "loss")
Numbers = Mapping[str, Any]


def plan(recipe: Recipe, trainer: Trainer, data: ImageData, where: str) -> str:
    """The first screen: net, data, arithmetic of the batch, rate, folder."""
    num_processes = trainer.accelerator.num_processes
    sizes = "  ".join(f"{name} {len(split.labels)}" for name, split in data.splits.items())
    per_epoch = trainer.steps_per_epoch
    steps = trainer.steps
    first, last = (trainer.rate_at(step) for step in (0, steps - 1))
    return f"""\
net    {recipe.model.in_words()}  {count_parameters(trainer.net):,} parameters  \
{device_name(trainer.accelerator.device)}  {strategy(trainer.accelerator)}  \
mixed precision {recipe.launch.mixed_precision}
data   {recipe.data.name}  {sizes}  {recipe.data.scaling}  \
{recipe.augment.in_words()}
batch  {recipe.batch_size} = {recipe.batch_size / num_processes / recipe.accumulation:g} x \
{num_processes} process(es) x {recipe.accumulation} pass(es)  \
{steps} steps = {steps / per_epoch:g} epochs x {per_epoch}  seed {recipe.seed}
rate   {recipe.optim.lr:g} {recipe.schedule.name}, {first:.3g} -> {last:.3g}  \
{recipe.optim.name}  weight decay {recipe.optim.weight_decay:g}
run    {where}{f"  goes on after step {trainer.step}" if trainer.step else ""}"""


def write_beginning(recipe: Recipe, run: Run, weights: Weights | None) -> None:
    """Where the first weights are from and what became of each norm, where that is to be told."""
    if weights is not None:
        run.write(SOURCE, to_json(weights.facts(), indent=2) + "\n")
    if recipe.model.swap is not None:
        facts = {name: run.facts[name] for name in ("num_classes", "in_chans")}
        run.write(SWAP, f"{swap_report(recipe.model, **facts)}\n")


def test_numbers(
    recipe: Recipe, trainer: Trainer, run: Run, data: ImageData, task: Classification
) -> tuple[dict[str, Numbers], Tensor]:
    """Numbers by weights, and the confusion matrix of the best weights (else the last).

    The test split is looked at here and nowhere else.
    """
    net = trainer.evaluated
    numbers: dict[str, Numbers] = {}
    values: dict[str, Tensor] = {}
    for weights in (LAST, BEST) if run.best else (LAST,):
        if weights == BEST:
            run.load(BEST, net)
        values = evaluate_split(net, data, task, "test", recipe)
        numbers[weights] = task.summary(values, data.labels("test"))
    return numbers, task.confusion_matrix(values, data.labels("test"))


def result_of(
    recipe: Recipe, trainer: Trainer, run: Run, data: ImageData, tested: Mapping[str, Numbers]
) -> dict[str, Any]:
    """result.json, without the time: every number with its split and its weights."""
    rows = []
    for weights, row in ((LAST, run.rows[-1]), (BEST, run.best)):
        if row is not None:
            val = {name: row.get(f"val.{name}") for name in (*SCORES, "count")}
            rows += rows_of("val", weights, val) + rows_of("test", weights, tested[weights])
    seconds = sum(row["seconds"] for row in run.rows)
    image = data.splits["test"].images(torch.zeros(1, dtype=torch.long))
    example = data.inputs(image.to(trainer.accelerator.device))
    return {
        "name": recipe.name,
        "seed": recipe.seed,
        "epochs": trainer.epoch,
        "best_epoch": run.best["epoch"] if run.best else None,
        "results": rows,
        "parameters": count_parameters(trainer.net),
        "macs": count_macs(trainer.net, example),
        "training_seconds": seconds,
        "samples_per_second": trainer.step * recipe.batch_size / seconds,
        "data_wait": sum(row["data_wait"] * row["seconds"] for row in run.rows) / seconds,
        "memory_bytes": peak_memory(trainer.accelerator.device),
    }


def rows_of(split: str, weights: str, numbers: Numbers) -> list[dict[str, Any]]:
    """One row per score that there is."""
    return [
        {
            "split": split,
            "weights": weights,
            "metric": name,
            "value": numbers[name],
            "count": numbers["count"],
        }
        for name in SCORES
        if numbers.get(name) is not None
    ]


def write_outcome(run: Run, result: dict[str, Any], matrix: Tensor) -> None:
    """The files that end a run, and its last line on the screen."""
    if not run.writes:
        return
    classes = run.facts["classes"]
    draw_curves(run.rows, run.folder / "curves.png")
    weights = BEST if run.best else LAST
    title = f"test split, {int(matrix.sum())} images, {weights} weights"
    draw_confusion(matrix, classes, run.folder / "confusion.png", title)
    run.write("confusion.csv", confusion_csv(matrix, classes))
    result["per_class"] = {
        "split": "test",
        "weights": weights,
        "classes": class_numbers(matrix, classes),
    }
    result["seconds"] = run.seconds
    write_report(run.folder, result)
    run.write(RESULT, to_json(result, indent=2) + "\n")  # the last file: the run is finished
    tests = [
        f"{100 * row['value']:.2f} % with the {row['weights']} weights"
        for row in result["results"]
        if row["split"] == "test" and row["metric"] == "top1"
    ]
    print(f"test top1 {', '.join(tests)}  {in_time(result['seconds'])}  {run.folder}", flush=True)


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
