"""Training runs of classification: from a recipe to work for the core."""

from collections.abc import Sequence

import torch

from classification.config import Penalty, Recipe
from classification.data import check_packages, count_classes, load_data
from classification.task import complete
from classification.weights import first_weights
from classification.work import ClassificationWork
from knorm.training.launch import start
from knorm.training.mistakes import mistakes_of_the_user
from knorm.training.nets import make_model
from knorm.training.penalties import layers_of
from knorm.training.resume import Place
from knorm.training.run import command_line
from knorm.training.session import check_recipe, place_of, train_or_rehearse


def carry_out(recipe: Recipe, argv: Sequence[str]) -> None:
    """The plan of a training run; `argv` is what its command line said."""
    place = prepare(recipe)  # the last place for mistakes before any process group
    accelerator = start(recipe.launch)
    work = ClassificationWork(recipe, load_data(recipe, accelerator))
    train_or_rehearse(work, place, command_line("classification.train", argv))


def prepare(recipe: Recipe) -> Place:
    """Check what can be checked without data, and find the folder of the run."""
    check_recipe_and_net(recipe)
    place = place_of(recipe)
    if not place.saved:
        first_weights(recipe)
    return place


def check_recipe_and_net(recipe: Recipe) -> None:
    """Raise `UserMistakeError` for what is wrong whatever the data; builds the net, without memory.

    Fills in the size of the images in the options of a net that is built for one.
    """
    check_packages(recipe.data, recipe.augment)
    check_recipe(recipe, recipe.augment.together)
    with mistakes_of_the_user():
        complete(recipe.model, recipe.data)
    with mistakes_of_the_user(), torch.device("meta"):
        net = make_model(
            recipe.model,
            num_classes=count_classes(recipe.data),
            in_chans=recipe.data.facts.in_chans,
            seed=recipe.seed,
        )
    if recipe.penalty != Penalty():
        layers_of(net)
