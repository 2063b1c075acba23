import torch
from torch import nn

from knorm.models import create_model
from knorm.training.cost import count_macs, count_parameters, peak_memory


def test_parameters_are_the_trainable_ones():
    net = nn.Linear(3, 2)
    net.bias.requires_grad_(False)
    assert count_parameters(net) == 6


def test_macs_are_those_of_convolutions_and_matrix_products():
    net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(100, 7))
    assert count_macs(net, torch.zeros(1, 2, 5, 5)) == 25 * 4 * 2 * 9 + 100 * 7
    assert net.training


def test_kernel_normalized_nets_are_counted_too():
    net = create_model("knresnet13", num_classes=10, in_chans=1, width=0.25)
    plain = create_model("knresnet13", num_classes=10, in_chans=1, width=0.25, norm="none")
    example = torch.zeros(1, 1, 8, 8)
    assert count_macs(net, example) >= count_macs(plain, example) > 0


def test_a_process_takes_memory():
    assert peak_memory(torch.device("cpu")) > 2**20
