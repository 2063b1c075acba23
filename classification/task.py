"""What classification is: the net, its loss and its measures."""

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classification.config import Loss, Model
from classification.data import Batch, ImageData
from classification.data_config import Data
from classification.weights import Weights
from knorm.choices import nearest
from knorm.models import create_model, model_options
from knorm.models.in_timm import OF_KERNEL
from knorm.swap import Report, swap_norm
from knorm.training import metrics
from knorm.training.loop import Sums
from knorm.training.mistakes import UserMistakeError
from knorm.training.seeds import seed_torch

TOP_K = 5
COMMON = ("norm", "stem", "activation", *OF_KERNEL)


def make_model(
    model: Model, *, num_classes: int, in_chans: int, seed: int, weights: Weights | None = None
) -> nn.Module:
    """The net on the CPU, its norms swapped if the recipe says so.

    Its first weights are a function of `seed`, or `weights`, which were saved before the swap or,
    where the run that saved them had swapped, after it.
    """
    options, swap = net_options(model), swap_options(model)
    seed_torch(seed)
    net = create_model(model.name, num_classes=num_classes, in_chans=in_chans, **options)
    swapped_before = weights is not None and weights.recipe.model.swap is not None
    if weights is not None and not swapped_before:
        weights.fill(net)
    if swap:
        net, _ = swap_norm(net, inplace=True, **swap)
    if weights is not None and swapped_before:
        weights.fill(net)
    return net


def swap_report(model: Model, *, num_classes: int, in_chans: int) -> Report:
    """What `model.swap` does to each norm of the net."""
    with torch.device("meta"):
        net = create_model(
            model.name, num_classes=num_classes, in_chans=in_chans, **net_options(model)
        )
        return swap_norm(net, inplace=True, **swap_options(model))[1]


def swap_options(model: Model) -> dict[str, Any]:
    """What the recipe gives `swap_norm`; empty where the norms stay."""
    if model.swap is None:
        return {}
    given = {name: getattr(model, name) for name in OF_KERNEL if model.swap == "kernel"}
    given = {name: value for name, value in given.items() if value is not None}
    return {"kind": model.swap, **given, **model.swap_options}


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


def net_options(model: Model) -> dict[str, Any]:
    """What the recipe gives `create_model` besides what the data ask for."""
    names = [name for name in COMMON if model.swap != "kernel" or name not in OF_KERNEL]
    given = {name: getattr(model, name) for name in names if getattr(model, name) is not None}
    twice = sorted(given.keys() & model.options.keys())
    if twice:
        raise ValueError(f"model.{twice[0]} is given twice, also in model.options")
    taken = model_options(model.name)
    for option in model.options:
        if option in ("num_classes", "in_chans"):
            raise ValueError(f"model.options.{option} is known from the data; leave it out")
        if option not in taken:
            raise ValueError(
                f"model.options.{option}: {model.name} takes no such option"
                f"{nearest(option, taken)} (--model.options '{{}}' drops those of the recipe)"
            )
    return given | model.options


def check_images(model: Model, data: ImageData) -> None:
    """Raise `UserMistakeError` where the net cannot take images of that size; computes nothing."""
    image = data.splits["train"].images(torch.zeros(1, dtype=torch.long))
    with torch.device("meta"):
        net = make_model(model, num_classes=len(data.classes), in_chans=image.shape[1], seed=0)
        try:
            net.eval()(torch.empty(image.shape))
        except (RuntimeError, ValueError) as error:
            height, width = image.shape[2:]
            raise UserMistakeError(
                f"{model.name} cannot take images of {height} x {width}: {error}"
            ) from error


class Classification:
    """Loss of a batch in training, values of each sample in evaluation, numbers from these."""

    def __init__(self, loss: Loss, num_classes: int, *, test_flip: bool = False):
        self.label_smoothing, self.num_classes = loss.label_smoothing, num_classes
        self.names = ("loss", "predicted") + (("top5",) if num_classes > TOP_K else ())
        self.names += ("flip_predicted",) if test_flip else ()

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Sums]:
        """Loss of the batch's real samples, summed; sums over them for the log."""
        logits, real = model(batch.inputs).float()[: batch.real], batch.real
        loss = F.cross_entropy(
            logits, batch.targets[:real], reduction="sum", label_smoothing=self.label_smoothing
        )
        correct = logits.detach().argmax(dim=1) == batch.labels[:real]
        count = loss.new_full((), real)
        return loss, {"loss": loss, "top1": correct.sum(), "count": count}

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
