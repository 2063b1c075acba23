"""Training runs of segmentation: from a recipe to work for the core."""

from collections.abc import Sequence
from importlib.util import find_spec

import torch

from knorm.training.launch import start
from knorm.training.mistakes import UserMistakeError, mistakes_of_the_user
from knorm.training.nets import make_model
from knorm.training.packages import how_to_install
from knorm.training.resume import Place
from knorm.training.run import command_line
from knorm.training.session import check_recipe, place_of, train_or_rehearse
from segmentation.config import Recipe
from segmentation.data import load_data
from segmentation.weights import first_weights
from segmentation.work import IN_CHANS, SegmentationWork

PACKAGES = {"a run's pictures": "matplotlib", "reading images": "PIL"}


def carry_out(recipe: Recipe, argv: Sequence[str]) -> None:
    """The plan of a training run; `argv` is what its command line said."""
    place = prepare(recipe)  # the last place for mistakes before any process group
    accelerator = start(recipe.launch)
    data = load_data(recipe.data, accelerator, channels_last=recipe.launch.channels_last)
    work = SegmentationWork(recipe, data)
    train_or_rehearse(work, place, command_line("segmentation.train", argv))


def prepare(recipe: Recipe) -> Place:
    """Check what can be checked without data, and find the folder of the run."""
    for what, module in PACKAGES.items():
        if find_spec(module) is None:
            raise UserMistakeError(f"{what} needs {module}: {how_to_install(module)}")
    check_recipe(recipe)
    with mistakes_of_the_user(), torch.device("meta"):
        num_classes = len(recipe.data.read_classes().names)
        recipe.loss.check_classes(num_classes)
        make_model(recipe.model, num_classes=num_classes, in_chans=IN_CHANS, seed=recipe.seed)
    place = place_of(recipe)
    if not place.saved:
        first_weights(recipe)
    return place
