"""The weights of a run of segmentation, see `knorm.training.weights`."""

from knorm.training import weights
from knorm.training.mistakes import mistakes_of_the_user
from knorm.training.weights import Weights
from segmentation.config import Recipe, load_recipe


def first_weights(recipe: Recipe) -> Weights[Recipe] | None:
    """What `model.weights` of the recipe names, see `knorm.training.weights.first_weights`."""
    with mistakes_of_the_user():
        classes = recipe.data.read_classes()
    return weights.first_weights(
        recipe.model,
        load_recipe,
        data_name=recipe.data.name,
        num_classes=len(classes.names),
        in_chans=3,
    )
