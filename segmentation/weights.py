"""Weights to begin with: those of a run of segmentation, or a backbone's from classification."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from knorm.checkpoints import convert_norm_torch_state_dict, load_checkpoint
from knorm.training import checkpoint, weights
from knorm.training.folder import BEST, LAST
from knorm.training.mistakes import UserMistakeError, mistakes_of_the_user
from knorm.training.weights import Weights
from segmentation.config import Recipe, load_recipe

OURS = "features."  # what keys of our nets begin with


@dataclass(frozen=True)
class Backbone:
    """Weights of a classification net."""

    place: Path
    tensors: dict[str, Tensor]

    @property
    def swapped(self) -> bool:
        return False  # their norms are those of the net as it is made

    def fill(self, net: nn.Module) -> None:
        """Give them to the backbone of a net.

        Raises:
            UserMistakeError: it has none of ours, or they are of another one.
        """
        load = getattr(net, "load_features", None)
        if load is None:
            raise UserMistakeError("backbone_weights: this net has no backbone to give them to")
        try:
            load(self.tensors)
        except ValueError as error:
            raise UserMistakeError(f"backbone_weights {self.place}: {error}") from error

    def facts(self) -> dict[str, Any]:
        """Where they are from, and what identifies them."""
        total = hashlib.sha256()
        for name in sorted(self.tensors):
            total.update(name.encode())
            total.update(self.tensors[name].contiguous().view(torch.uint8).numpy().tobytes())
        return {"backbone": str(self.place), "sha256": total.hexdigest()}


def first_weights(recipe: Recipe) -> Weights[Recipe] | Backbone | None:
    """What `model.weights` or `backbone_weights` of the recipe names, None without.

    Raises:
        UserMistakeError: there are none, or they do not fit.
    """
    if recipe.backbone_weights is not None:
        return read_backbone(Path(recipe.backbone_weights))
    with mistakes_of_the_user():
        classes = recipe.data.read_classes()
    return weights.first_weights(
        recipe.model,
        load_recipe,
        data_name=recipe.data.name,
        num_classes=len(classes.names),
        in_chans=3,
    )


def read_backbone(place: Path) -> Backbone:
    """The weights of a run of classification, its best where there are such, or of a file.

    A file holds a state dict of ours, or a KNResNet as its authors publish it.
    """
    try:
        if place.is_dir():
            best = place / BEST
            found = checkpoint.load(best if checkpoint.exists(best) else place / LAST).evaluated
        else:
            found = load_checkpoint(place)
        if not any(key.startswith(OURS) for key in found):
            found = convert_norm_torch_state_dict(found)
    except (OSError, ValueError) as error:
        raise UserMistakeError(f"backbone_weights {place}: {error}") from error
    return Backbone(place, found)
