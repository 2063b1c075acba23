"""What classification is: the net, its loss and its measures."""

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classification.config import Loss, Penalty, Recipe
from classification.data import Batch, ImageData, evaluation_batches
from classification.data_config import Data
from knorm.models import model_options
from knorm.training import metrics
from knorm.training.evaluate import evaluate
from knorm.training.loop import Sums
from knorm.training.model_settings import Model
from knorm.training.penalties import (
    Amounts,
    activation_penalty,
    layers_of,
    watched,
    weight_penalty,
)

TOP_K = 5


def complete(model: Model, data: Data) -> None:
    """Fill in the size of the images, where the net is built for one size.

    Raises ValueError where evaluation has images of another size.
    """
    if "img_size" not in model_options(model.name) or "img_size" in model.options:
        return
    if data.eval_size not in (None, data.image_size):
        raise ValueError(
            f"{model.name} is built for images of one size, but data.eval_size is "
            f"{data.eval_size}, not {data.image_size}; give the size as model.options.img_size"
        )
    model.options = {**model.options, "img_size": data.facts.image_size}


class Classification:
    """Loss of a batch in training, values of each sample in evaluation, numbers from these."""

    def __init__(
        self,
        loss: Loss,
        num_classes: int,
        *,
        penalty: Penalty | None = None,
        test_flip: bool = False,
    ):
        self.label_smoothing, self.num_classes = loss.label_smoothing, num_classes
        penalty = penalty or Penalty()
        self.on_weights = Amounts(penalty.weight_l1, penalty.weight_l2)
        self.on_activations = Amounts(penalty.activation_l1, penalty.activation_l2)
        self.names = ("loss", "predicted") + (("top5",) if num_classes > TOP_K else ())
        self.names += ("flip_predicted",) if test_flip else ()

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Sums]:
        """Loss of the batch's real samples, summed; sums over them for the log.

        Where there are penalties every sample's loss has them, so that the mean over a step has
        them once, into however many passes and processes it is cut.
        """
        layers = layers_of(model) if self.on_weights or self.on_activations else []
        with watched(layers if self.on_activations else []) as seen:
            logits, real = model(batch.inputs).float()[: batch.real], batch.real
        loss = F.cross_entropy(
            logits, batch.targets[:real], reduction="sum", label_smoothing=self.label_smoothing
        )
        correct = logits.detach().argmax(dim=1) == batch.labels[:real]
        sums = {"loss": loss, "top1": correct.sum(), "count": loss.new_full((), real)}
        if not layers:
            return loss, sums
        penalty = torch.zeros_like(loss)
        if self.on_weights:
            penalty = penalty + real * weight_penalty(layers, self.on_weights)
        if self.on_activations:
            penalty = penalty + activation_penalty(seen, self.on_activations, real)
        return loss + penalty, sums | {"penalty": penalty}

    def per_sample(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy without smoothing, predicted class, whether the label is in the top 5.

        With `test_flip` also the class predicted by the mean softmax of image and mirror image,
        after everything else, so that nets which draw in evaluation tell the same without it.
        """
        logits = net(batch.inputs).float()
        values = {
            "loss": F.cross_entropy(logits, batch.labels, reduction="none"),
            "predicted": logits.argmax(dim=1),
        }
        if "top5" in self.names:
            top = logits.topk(TOP_K, dim=1).indices
            values["top5"] = (top == batch.labels[:, None]).any(dim=1)
        if "flip_predicted" in self.names:
            mirrored = net(batch.inputs.flip(-1)).float()
            both = logits.softmax(dim=1) + mirrored.softmax(dim=1)
            values["flip_predicted"] = both.argmax(dim=1)
        return values

    def summary(self, values: Mapping[str, Tensor], labels: Tensor) -> dict[str, Any]:
        """The split's numbers: fractions, and the counts that they are made of."""
        correct = int((values["predicted"] == labels).sum())
        numbers = {"loss": metrics.mean(values["loss"]), "top1": correct / len(labels)}
        if "top5" in self.names:
            numbers["top5"] = metrics.mean(values["top5"])
        if "flip_predicted" in self.names:
            flip_correct = int((values["flip_predicted"] == labels).sum())
            numbers["top1_flip"] = flip_correct / len(labels)
        return numbers | {"correct": correct, "count": len(labels)}

    def confusion_matrix(self, values: Mapping[str, Tensor], labels: Tensor) -> Tensor:
        """True class by row, predicted class by column."""
        return metrics.confusion_matrix(values["predicted"], labels, self.num_classes)


def score(numbers: Mapping[str, Any]) -> tuple[float, float]:
    """What makes weights the best: top-1, and between equals the lower loss."""
    return numbers["top1"], -numbers["loss"] if math.isfinite(numbers["loss"]) else -math.inf


def evaluate_split(
    net: nn.Module, data: ImageData, task: Classification, split: str, recipe: Recipe
) -> dict[str, Tensor]:
    """Per-sample values of a split, in its order, on every rank."""
    return evaluate(
        data.accelerator,
        net,
        evaluation_batches(data, split, recipe.eval_batch_size),
        task.per_sample,
        names=task.names,
        num_samples=len(data.labels(split)),
        seed=recipe.seed,
    )
