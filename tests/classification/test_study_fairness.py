"""D12 and D15 of the published studies: unlike nets compared, and choices by the test images."""

from itertools import groupby

import pytest
import torch
from torch import nn

from knorm import create_model
from knorm.kan import FORMS
from knorm.training.cost import count_parameters
from tests.classification.studies import NAMES, ours

AS_PUBLISHED = {name for name in NAMES if name.endswith("-published")} | {
    "kan-prelim",
    "kan-updated",
}
OWN_CHOICES = ("model.", "penalty.")


def size(row):
    """Parameters of a row's net."""
    model = row.recipe.model
    with torch.device("meta"):
        net = create_model(model.name, num_classes=10, norm=model.norm, **model.options)
    return count_parameters(net)


def choice(row, name):
    return row.settings[f"model.options.{name}"]


def of_data(row):
    return row.settings["data.name"]


def test_d12_every_kan_net_has_a_plain_one_of_its_size_and_its_groups():
    rows = [row for row in ours("kan-fair", None).rows if of_data(row) == "cifar10"]
    sizes = {row.number: size(row) for row in rows}
    for row in rows:
        if choice(row, "conv") not in FORMS:
            continue
        alike = [
            other
            for other in rows
            if choice(other, "conv") == "plain" and other.recipe.model.name == row.recipe.model.name
        ]
        if choice(row, "groups") > 1:
            assert any(choice(other, "groups") == choice(row, "groups") for other in alike)
        else:
            off = min(abs(sizes[other.number] / sizes[row.number] - 1) for other in alike)
            assert off <= 0.002, row.slug


def test_d12_rows_differ_in_their_nets_alone():
    study = ours("kan-fair", None)
    assert len(study.seeds) >= 3
    for _, rows in groupby(study.rows, of_data):
        common = [
            {name: v for name, v in row.settings.items() if not name.startswith(OWN_CHOICES)}
            for row in rows
        ]
        assert all(settings == common[0] for settings in common)
    dropouts = {(choice(row, "drop"), choice(row, "head_drop")) for row in study.rows}
    assert len(dropouts) == 1


def test_nets_of_every_convolution_and_norm_have_one_size_and_number_of_groups():
    rows = ours("kan-norms", None).rows
    assert len(rows) == 7 * 5
    sizes = {choice(row, "conv"): size(row) for row in rows if row.recipe.model.norm == "batch"}
    assert all(abs(number / sizes["plain"] - 1) <= 0.006 for number in sizes.values())
    assert (min(sizes.values()), max(sizes.values())) == (389_642, 394_186)
    for row in rows:
        if row.recipe.model.norm == "group":
            model = row.recipe.model
            net = create_model(model.name, num_classes=10, norm="group", **model.options)
            norms = [module for module in net.modules() if isinstance(module, nn.GroupNorm)]
            groups = {n.num_groups for n in norms if n.num_channels > 3}  # no norm of the image
            assert groups == {4}, row.slug


def test_kernel_nets_get_the_pixels_of_the_paper():
    for row in ours("norms-batch-size", None).rows:
        is_kernel = row.recipe.model.norm == "kernel"
        assert row.recipe.data.scaling == ("scale" if is_kernel else "fixed")


@pytest.mark.parametrize("name", NAMES)
def test_d15_test_images_choose_nothing_but_where_that_was_published(name):
    study = ours(name, None)
    held_out = {row.recipe.data.val_fraction for row in study.rows}
    assert held_out == ({0.0} if name in AS_PUBLISHED else {0.1})
    assert len(study.seeds) >= 3
