"""The weights of a run of classification, see `knorm.training.weights`."""

from functools import partial

from classification.config import Recipe, load_recipe
from classification.data import count_classes
from knorm.training import weights
from knorm.training.weights import Weights

read_weights = partial(weights.read_weights, load_recipe=load_recipe)


def first_weights(recipe: Recipe) -> Weights[Recipe] | None:
    """What `model.weights` of the recipe names, see `knorm.training.weights.first_weights`."""
    return weights.first_weights(
        recipe.model,
        load_recipe,
        data_name=recipe.data.name,
        num_classes=count_classes(recipe.data),
        in_chans=recipe.data.facts.in_chans,
    )
