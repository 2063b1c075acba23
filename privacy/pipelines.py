"""The pipelines whose nets can be trained privately, by the kind of the recipe."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from accelerate import Accelerator

import classification.data
import classification.runs
import segmentation.data
import segmentation.runs
from classification.work import ClassificationWork
from knorm.training.launch import command_hint, flag, world_size
from knorm.training.mistakes import UserMistakeError
from knorm.training.resume import Place
from knorm.training.work import Work
from privacy.config import Private, PrivateRecipe, PrivateSegmentation
from segmentation.work import SegmentationWork


class PrivateWork(Work, Protocol):
    """Work whose recipe has a section `privacy`."""

    @property
    def recipe(self) -> Private: ...


class Pipeline(NamedTuple):
    """What happens before a run steps."""

    prepare: Callable[[Any], Place]
    """checks a recipe, and finds the folder of its run"""
    load: Callable[[Any, Accelerator], PrivateWork]
    """reads the data"""


def classify(recipe: PrivateRecipe, accelerator: Accelerator) -> PrivateWork:
    """The work of a recipe of classification."""
    return ClassificationWork(recipe, classification.data.load_data(recipe, accelerator))


def segment(recipe: PrivateSegmentation, accelerator: Accelerator) -> PrivateWork:
    """The work of a recipe of segmentation."""
    channels_last = recipe.launch.channels_last
    data = segmentation.data.load_data(recipe.data, accelerator, channels_last=channels_last)
    return SegmentationWork(recipe, data)


PIPELINES = {
    PrivateRecipe: Pipeline(classification.runs.prepare, classify),
    PrivateSegmentation: Pipeline(segmentation.runs.prepare, segment),
}


def pipeline_of(recipe: Private) -> Pipeline:
    """The pipeline that the recipe is of."""
    return next(found for kind, found in PIPELINES.items() if isinstance(recipe, kind))


def prepare(recipe: Private) -> Place:
    """The pipeline's own checks, and that every process has the whole net."""
    if flag("ACCELERATE_USE_FSDP"):
        raise UserMistakeError(
            "the launcher asks for FSDP, but a private step needs the whole net on every process; "
            + command_hint(world_size())
        )
    return pipeline_of(recipe).prepare(recipe)
