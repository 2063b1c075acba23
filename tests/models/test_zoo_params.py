"""Parameter counts of the studied nets, as their own code has them."""

import csv
from pathlib import Path

import pytest
import torch

from knorm.models import create_model

ROWS = Path(__file__).parent.parent / "golden" / "zoo_params.csv"

# (model, config) of the table -> our net and its options.
TRICKS = {
    ("tricks-baseline", "conv 32-64-64 dense 64"): {},
    ("tricks-wider", "conv 32-64-64 dense 512"): {"dense": [512]},
    ("tricks-deeper", "conv 32-64-64 dense 512-256"): {"dense": [512, 256]},
    ("tricks-bn-before", "conv 32-64-64 dense 64 BN before ReLU"): {"norm": "batch"},
    ("tricks-bn-after", "conv 32-64-64 dense 64 BN after ReLU"): {
        "norm": "batch",
        "norm_after_act": True,
    },
    ("tricks-residual", "res 32-64-64 dense 64"): {"norm": "batch", "residual": True},
}
PLAIN = {
    **{name: {} for name in ("mini_net", "recres11")},
    **{f"resnet{depth}": {} for depth in (10, 18, 34, 50, 101, 152)},
    **{f"resnext{depth}": {} for depth in (10, 18, 34, 50, 101, 152)},
    **{f"densenet{depth}": {} for depth in (121, 161, 169, 201)},
    **{f"vgg{depth}": {} for depth in (11, 13, 16, 19)},
}
# Of the norms of resnet18 the published code replaces the stem's alone.
RESNET18 = {
    "celu": {"activation": "celu"},
    "gelu": {"activation": "gelu"},
    "leakyrelu": {"activation": "leaky_relu"},
    "in": {"norm": "instance", "norm_options": {"affine": False}, "norm_scope": "stem"},
    "ln": {"norm": "layer", "norm_scope": "stem"},
    "gn": {"norm": "group", "norm_scope": "stem"},
}
CONVMIXERS = {
    "256d16k3": {"kernel_size": 3},
    "256d16k9": {"kernel_size": 9},
    "256d8": {"depth": 8},
    "256d16": {},
    "1024d10": {"dim": 1024, "depth": 10},
    "768d17": {"dim": 768, "depth": 17},
    "1024d18": {"dim": 1024, "depth": 18},
    "2048d5": {"dim": 2048, "depth": 5},
}
LIKE = {
    ("vgglike", "in=32 blocks=3 layers=2 k=3 stem5x5"): {},
    ("resnetlike", "in=32 vanilla_chunks=1 x3 bottleneck_chunks=2 x3"): {},
    ("resnetlike", "in=32 vanilla_chunks=2 x3 bottleneck_chunks=3 x3"): {
        "vanilla_chunks": 2,
        "bottleneck_chunks": 3,
    },
    ("resnextlike", "in=64 chunks=3 card=64 width=4"): {},
    ("resnextlike", "in=64 chunks=4 card=64 width=4"): {"chunks": 4},
    ("densenetlike", "in=48 chunks=4 growth=12 layers=8 bottleneck=4 compression=0.5"): {},
    ("densenetlike", "in=64 chunks=5 growth=16 layers=8 bottleneck=4 compression=0.5"): {
        "chunks": 5,
        "growth": 16,
    },
}
NETS = {
    **{(name, "default"): (name, options) for name, options in PLAIN.items()},
    **{(f"resnet18_{name}", "default"): ("resnet18", given) for name, given in RESNET18.items()},
    **{(f"convmixer{size}", "default"): ("convmixer", given) for size, given in CONVMIXERS.items()},
    ("resnet10_celu", "default"): ("resnet10", {"activation": "celu"}),
    ("widerres14", "default"): ("widerresnet14", {}),
    **{row: (row[0], options) for row, options in LIKE.items()},
    **{row: ("tricks_net", options) for row, options in TRICKS.items()},
}


def rows():
    """The rows of the table, those of the KAN convolutions excepted."""
    with ROWS.open() as file:
        table = csv.DictReader(line for line in file if not line.startswith("#"))
        return [row for row in table if row["origin"] != "torch-conv-kan"]


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row['model']} {row['config']}")
def test_parameter_counts_are_exactly_the_published_ones(row):
    name, options = NETS[row["model"], row["config"]]
    with torch.device("meta"):
        net = create_model(
            name,
            in_chans=int(row["in_channels"]),
            num_classes=int(row["num_classes"]),
            stem="cifar",
            **options,
        )
    count = sum(p.numel() for p in net.parameters() if p.requires_grad)
    assert count == int(row["expected_trainable_params"])


def test_every_case_is_a_row_of_the_table():
    assert {*NETS} == {(row["model"], row["config"]) for row in rows()}
