"""D12 and D15 of the published studies: unlike nets compared, and choices by the test images."""

from itertools import groupby

import pytest
import torch

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


@pytest.mark.parametrize("name", NAMES)
def test_d15_test_images_choose_nothing_but_where_that_was_published(name):
    study = ours(name, None)
    held_out = {row.recipe.data.val_fraction for row in study.rows}
    assert held_out == ({0.0} if name in AS_PUBLISHED else {0.1})
    assert len(study.seeds) >= 3
