"""List the nets with their parameters and multiplications.

    knorm models
    knorm models "*resnet18"

Sizes are those of nets for images as CIFAR's (32 x 32, 10 classes, stem "cifar") and as ImageNet's
(224 x 224, 1000 classes, stem "imagenet"), with each net's own norm. MACs are multiply-accumulates
of convolutions and matrix products for one image; FLOPs are twice as many. A dash: the net does not
take such images.
"""

from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence

import torch

from knorm.choices import nearest
from knorm.cli.nets import LARGE, SMALL, Usual
from knorm.models import create_model, list_models, model_options
from knorm.training.cost import count_macs, count_parameters
from knorm.training.mistakes import OneLineParser, UserMistakeError
from knorm.training.tables import columns


def main(argv: Sequence[str]) -> None:
    """Print the table."""
    parser = OneLineParser(
        prog="knorm models", description=__doc__, formatter_class=RawDescriptionHelpFormatter
    )
    parser.add_argument("pattern", nargs="?", default="*", help='shell-style, such as "*resnet18"')
    pattern = parser.parse_args(argv).pattern
    names = list_models(pattern)
    if not names:
        raise UserMistakeError(f"no model matches {pattern!r}{nearest(pattern, list_models())}")
    heads = [f"{size.name} {unit}" for size in (SMALL, LARGE) for unit in ("M params", "GMACs")]
    rows = [[name, *size_of(name, SMALL), *size_of(name, LARGE)] for name in names]
    print(columns(["model", *heads], rows))


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
