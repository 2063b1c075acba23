"""List the nets with their parameters and multiplications.

    knorm models
    knorm models "*resnet18"

Nets that classify come first, then those for segmentation. Sizes are those for images as CIFAR's
(32 x 32, 10 classes, stem "cifar") and as ImageNet's (224 x 224, 1000 classes, stem "imagenet"),
for segmentation 512 x 512 and the 19 classes of Cityscapes, with each net's own norm. MACs are
multiply-accumulates of convolutions and matrix products for one image; FLOPs are twice as many. A
dash: the net does not take such images.
"""

from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence

import torch

from knorm.choices import TASKS, Task, nearest
from knorm.cli.nets import LARGE, SMALL, STREETS, Usual
from knorm.models import create_model, list_models, model_options
from knorm.training.cost import count_macs, count_parameters
from knorm.training.mistakes import OneLineParser, UserMistakeError
from knorm.training.tables import columns

USUAL: dict[Task, tuple[Usual, ...]] = {
    "classification": (SMALL, LARGE),
    "segmentation": (STREETS,),
}


def main(argv: Sequence[str]) -> None:
    """Print a table for each task."""
    parser = OneLineParser(
        prog="knorm models", description=__doc__, formatter_class=RawDescriptionHelpFormatter
    )
    parser.add_argument("pattern", nargs="?", default="*", help='shell-style, such as "*resnet18"')
    pattern = parser.parse_args(argv).pattern
    tables = [table(names, USUAL[task]) for task in TASKS if (names := list_models(pattern, task))]
    if not tables:
        known = [name for task in TASKS for name in list_models(task=task)]
        raise UserMistakeError(f"no model matches {pattern!r}{nearest(pattern, known)}")
    print("\n\n".join(tables))


def table(names: Sequence[str], sizes: Sequence[Usual]) -> str:
    """A line for each net, two columns for each kind of images."""
    heads = [f"{size.name} {unit}" for size in sizes for unit in ("M params", "GMACs")]
    rows = [[name, *(count for size in sizes for count in size_of(name, size))] for name in names]
    return columns(["model", *heads], rows)


def size_of(name: str, usual: Usual) -> tuple[str, str]:
    """Parameters in millions and MACs in milliards of the net for usual images."""
    options = {"stem": usual.stem, "num_classes": usual.num_classes}
    taken = model_options(name)
    try:
        with torch.device("meta"):
            net = create_model(name, **{k: v for k, v in options.items() if k in taken})
            macs = count_macs(net, torch.zeros(1, 3, usual.image_size, usual.image_size))
    except (ValueError, RuntimeError):
        return "-", "-"
    return f"{count_parameters(net) / 1e6:.2f}", f"{macs / 1e9:.3f}"
