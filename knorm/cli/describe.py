"""Options, size and stages of a net.

    knorm describe knresnet18
    knorm describe resnet50 --norm group --image_size 224 --option activation=mish

MACs are multiply-accumulates of convolutions and matrix products for one image; FLOPs are twice as
many. What kernel normalization adds to them is counted apart, by the formula of
`knorm.training.cost.kernel_norm_macs`. Mult-adds are torchinfo's count, which some papers call MACs
and give for a whole batch; see `knorm.training.cost.count_mult_adds`.
"""

import ast
import inspect
from argparse import RawDescriptionHelpFormatter
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any

import torch
from torch import nn

from knorm.choices import NORM_KINDS
from knorm.cli.nets import (
    add_arguments,
    image_size_of,
    in_words,
    make_net,
    net_options,
    too_large_for,
)
from knorm.models import model_options
from knorm.models.common import NetOptions
from knorm.models.registry import own_defaults
from knorm.training.cost import (
    count_mult_adds,
    count_parameters,
    macs_by_module,
    stages,
    weight_bytes,
)
from knorm.training.mistakes import OneLineParser
from knorm.training.tables import columns


def main(argv: Sequence[str]) -> None:
    """Print what there is to say of the net."""
    parser = OneLineParser(
        prog="knorm describe", description=__doc__, formatter_class=RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    options = parser.parse_args(argv)
    given = net_options(options)
    size = image_size_of(options)
    with torch.device("meta"):
        net = make_net(options.model, given)
        example = torch.zeros(1, options.in_chans, size, size)
    with too_large_for(size):
        sizes = size_table(net, example)
    taken = getattr(type(net), "Options", NetOptions)
    choices = {"norms": NORM_KINDS} | {
        what: getattr(taken, what, getattr(NetOptions, what)) for what in ("stems", "activations")
    }
    named = "\n".join(f"{what}: {', '.join(names)}" for what, names in choices.items())
    table = option_table(net, model_options(options.model), own_defaults(options.model))
    print(f"{options.model}  {in_words(given)}", table, named, sizes, sep="\n\n")


def size_table(net: nn.Module, example: torch.Tensor) -> str:
    """A line for each stage, and one for all."""
    whole = macs_by_module(net, example)[""]
    rows = [
        [
            stage.name,
            "x".join(map(str, stage.output)),
            f"{stage.parameters:,}",
            *(f"{count / 1e6:.2f}" for count in stage.macs),
        ]
        for stage in stages(net, example)
    ]
    total = ["all", "", f"{count_parameters(net):,}", *(f"{count / 1e6:.2f}" for count in whole)]
    shape = "x".join(map(str, example.shape[1:]))
    table = columns(
        ["stage", "output", "parameters", "MMACs", "kernel norm MMACs"],
        [["input", shape, "", "", ""], *rows, total],
    )
    mult_adds = count_mult_adds(net, example) / len(example)
    return (
        f"{table}\n\nmult-adds as torchinfo counts {mult_adds / 1e6:.2f} M an image, "
        f"{128 * mult_adds / 1e9:.2f} G a batch of 128\n"
        f"weights {weight_bytes(net) / 2**20:.1f} MiB in float32"
    )


def option_table(net: nn.Module, names: Sequence[str], own: Mapping[str, Any]) -> str:
    """Every option with its default and what it means, as the net's `Options` class says.

    Others among the names stand first, with their default if it is among the net's `own`.
    """
    options = getattr(type(net), "Options", None)
    if options is None:
        return f"options: {', '.join(names)}"
    meanings = attribute_docstrings(options)
    rows = [
        [field.name, "" if field.default is MISSING else _short(field.default), meaning]
        for field in fields(options)
        for meaning in [meanings.get(field.name, "")]
    ]
    documented = {row[0] for row in rows}
    others = [[name, _short(own.get(name)), ""] for name in names if name not in documented]
    return columns(["option", "default", "meaning"], [*others, *rows], left=3)


def attribute_docstrings(cls: type) -> dict[str, str]:
    """What stands below each field of a class and of those it is derived from."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        (tree,) = ast.parse(inspect.getsource(base)).body
        assert isinstance(tree, ast.ClassDef)
        for field, text in zip(tree.body, tree.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                match text:
                    case ast.Expr(value=ast.Constant(value=str(words))):
                        found[field.target.id] = " ".join(words.split())
    return found


def _short(value: Any) -> str:
    return "" if value is None else str(value)
