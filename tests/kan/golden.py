"""Outputs of the published layers, made by running their code (IvanDrokin/torch-conv-kan, MIT).

kan_basis.csv: values of the functions. kan_layers.json: outputs of layers with given weights, by
formulas that its "conventions" spell out; the layers had no dropout and were in training mode.
"""

import csv
import json
from collections import defaultdict
from pathlib import Path

import torch

from knorm.kan import FORMS, KANConv2d

GOLDEN = Path(__file__).parent.parent / "golden"
LAYERS = json.loads((GOLDEN / "kan_layers.json").read_text())["cases"]
NORMS = {"instance_noaffine": ("instance", {"affine": False}), "batch_train": ("batch", {})}


def basis_tables():
    """Name -> {(x, index): value}."""
    tables = defaultdict(dict)
    for row in csv.DictReader((GOLDEN / "kan_basis.csv").read_text().splitlines()):
        tables[row["basis"]][float(row["x"]), int(row["index"])] = float(row["value"])
    return tables


def grids(*sizes):
    return torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in sizes), indexing="ij")


def golden_input():
    n, c, h, w = grids(2, 4, 5, 5)
    return 1.2 * torch.sin(0.7 * n + 1.3 * c + 0.5 * h + 0.9 * w)


def golden_layer(case):
    """The layer of a case of LAYERS, as published, with its weights."""
    name, _, wavelet = case["layer"].partition("_")
    form = name.lower()
    published = dict(FORMS[form].published)
    options = dict(published.pop("basis_options", {}))
    if wavelet:
        options |= {"wavelet": wavelet, "channel_window": wavelet == "shannon"}
    norm, norm_options = NORMS[case["norm"]]
    layer = KANConv2d(
        4,
        6,
        3,
        stride=2,
        padding=1,
        form=form,
        basis_options=options,
        norm=norm,
        norm_options=norm_options,
        dtype=torch.float64,
        **published,
    )
    with torch.no_grad():
        fill(layer)
    return layer


def fill(layer):
    o, c, u, v = grids(6, 4, 3, 3)
    if layer.base is not None:
        layer.base.weight.copy_(0.1 * torch.sin(1 + o + 2 * c + 3 * u + 5 * v))
    if layer.form.basis == "wavelet":
        layer.basis.weight.copy_(0.1 * torch.cos(o + 3 * c + u - v))
        o, c = grids(6, 4)
        layer.basis.scale.copy_(1 + 0.1 * torch.sin(o + c))
        layer.basis.translation.copy_(0.1 * torch.cos(o - c))
        o, p = grids(6, 6)
        layer.basis.mix.weight.copy_((0.2 * torch.sin(o + 2 * p))[..., None, None])
        return
    o, c, j, u, v = grids(6, 4, layer.basis.weight.shape[2], 3, 3)
    layer.basis.weight.copy_(0.1 * torch.cos(o + 3 * c + 2 * j + u - v))
    if layer.basis.coefficients is not None:
        layer.basis.coefficients.copy_(torch.tensor([0.1, -0.2, 0.3, 0.05]))
