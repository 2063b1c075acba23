"""What a net and a run cost: parameters, multiplications, memory."""

import resource
import sys

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(net: nn.Module) -> int:
    """Trainable parameters."""
    return sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)


def count_macs(net: nn.Module, example: Tensor) -> int:
    """Multiply-accumulates of one forward pass in evaluation mode.

    Convolutions and matrix products are counted; element-wise work and pooling are not.
    """
    was_training = net.training
    net.eval()
    counter = FlopCounterMode(display=False)
    devices = [example.device] if example.is_cuda else []
    with torch.no_grad(), torch.random.fork_rng(devices), counter:
        net(example)
    net.train(was_training)
    return counter.get_total_flops() // 2


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that tensors took on a GPU, or the process took of the machine's memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
