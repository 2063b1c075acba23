"""The layer before a norm says what the norm gets, and whether it may take the norm up."""

import pytest
from torch import nn

from knorm.swap.forms import find_norms
from knorm.swap.sources import Sources


def sources_of(*layers):
    """The sources of a net of these layers, and its last norm."""
    net = nn.Sequential(*layers)
    return Sources(net), list(find_norms(net))[-1]


@pytest.mark.parametrize(
    ("layers", "num_dims"),
    [
        ((nn.BatchNorm3d(4),), 3),
        ((nn.Conv1d(3, 4, 1), nn.ReLU(), nn.GroupNorm(2, 4)), 1),
        ((nn.Conv2d(3, 4, 1), nn.Flatten(), nn.GroupNorm(2, 4)), 1),
        ((nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(4, 4), nn.SyncBatchNorm(4)), 1),
        ((nn.SyncBatchNorm(3), nn.Conv3d(3, 4, 1)), 3),
        ((nn.SyncBatchNorm(3), nn.Linear(3, 4)), 1),
        ((nn.SyncBatchNorm(3),), 2),
    ],
)
def test_the_dimensions_are_those_of_what_the_norm_gets(layers, num_dims):
    sources, norm = sources_of(*layers)
    assert sources.num_dims(norm) == num_dims


@pytest.mark.parametrize(
    ("layers", "name", "words"),
    [
        ((nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), "0", ""),
        ((nn.Conv2d(3, 4, 1), nn.PixelShuffle(2), nn.BatchNorm2d(1)), None, "no convolution"),
        ((nn.Linear(3, 4), nn.LayerNorm(4)), None, "its channels come last"),
        ((nn.BatchNorm2d(4),), None, "from outside"),
    ],
)
def test_a_layer_with_as_many_outputs_as_channels_is_the_source(layers, name, words):
    sources, norm = sources_of(*layers)
    for found, why in (sources.layer(norm), sources.layer_in_both_modes(norm)):
        assert found == name
        assert words in why
