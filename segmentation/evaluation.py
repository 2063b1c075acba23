"""Evaluation: the net that a run saved, and its numbers on a split."""

import sys
from argparse import Namespace
from dataclasses import asdict, replace
from math import isnan
from pathlib import Path
from typing import Any

from torch import Tensor

from knorm.training import loading
from knorm.training.launch import start
from knorm.training.loading import Loaded
from knorm.training.mistakes import mistakes_of_the_user
from knorm.training.options import loading as asked_for
from knorm.training.run import to_json
from knorm.training.work import Numbers
from segmentation.classes import Classes
from segmentation.config import Recipe, load_recipe
from segmentation.data import load_data
from segmentation.inference_options import inference_of
from segmentation.metrics import class_table
from segmentation.work import SegmentationWork


def carry_out(options: Namespace) -> None:
    """The plan of an evaluation."""
    with mistakes_of_the_user():
        loaded = load_net(options.run_dir, **asked_for(options))
        inference = inference_of(options, loaded.recipe.inference)
    recipe = replace(loaded.recipe, inference=inference, examples=0)
    accelerator = start(recipe.launch)
    data = load_data(
        recipe.data,
        accelerator,
        channels_last=recipe.launch.channels_last,
        statistics=loaded.statistics,
    )
    work = SegmentationWork(recipe, data)
    found = loading.evaluate_again(work, loaded, options.split, recipe.data.root)
    if accelerator.is_main_process:
        told = loading.about(options, loaded) | {"inference": asdict(inference)}
        print(to_json(told | dict(found.numbers)))
        print(
            in_words(options.split, found.numbers, found.details.matrix, data.classes),
            file=sys.stderr,
        )
    accelerator.end_training()


def load_net(run_dir: Path, **asked: Any) -> Loaded[Recipe]:
    """`knorm.training.loading.load_net` of a run of segmentation."""
    return loading.load_net(run_dir, load_recipe, **asked)


def in_words(split: str, numbers: Numbers, matrix: Tensor, classes: Classes) -> str:
    """The classes, each with its IoU, and the means."""
    width = max(map(len, classes.names))
    rows = [
        f"{row['class']:{width}}  IoU {_percent(row['iou'])}  accuracy {_percent(row['accuracy'])}"
        f"  {row['pixels']:,} pixels"
        for row in class_table(matrix, classes)
    ]
    means = [
        f"{name.replace('_', ' ')} {100 * numbers[name]:.2f} %"
        for name in ("miou", "pixel_accuracy", "mean_accuracy", "category_miou")
        if name in numbers
    ]
    return "\n".join([*rows, f"{split}: {', '.join(means)}, {numbers['count']} images"])


def _percent(value: float) -> str:
    return "     -" if isnan(value) else f"{100 * value:6.2f}"
