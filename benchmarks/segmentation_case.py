"""What `benchmarks.segmentation_speed` asks of its nets, and what one work of one of them takes."""

from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import NamedTuple

import torch
from torch import Tensor, nn

from knorm import create_model
from knorm.training.cost import peak_memory
from segmentation.inference import probabilities
from segmentation.inference_config import Inference
from segmentation.loss_config import Loss
from segmentation.losses import Criterion

Size = tuple[int, int]  # height, width
NUM_CLASSES, SEED = 19, 0


class Net(NamedTuple):
    """A net and its norm."""

    model: str
    norm: str
    parameters: int
    """as published for 19 classes"""


class Work(NamedTuple):
    """What a net is asked to do."""

    name: str
    of: Callable[[nn.Module, "Shapes"], Callable[[], object]]
    images: Callable[["Shapes"], int]
    """how many it does at once"""


class Shapes(NamedTuple):
    """Sizes, and where all happens."""

    size: Size
    crop: Size
    batch_size: int
    windows: int
    device: torch.device

    def pixels(self, count: int, size: Size) -> Tensor:
        """(count, 3, height, width), made up."""
        generator = torch.Generator().manual_seed(SEED)
        return torch.randn(count, 3, *size, generator=generator).to(self.device)


def training(net: nn.Module, shapes: Shapes) -> Callable[[], object]:
    """Forward and backward pass of the usual loss, and a step of SGD with momentum."""
    criterion = Criterion(Loss(), NUM_CLASSES, shapes.device)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
    inputs = shapes.pixels(shapes.batch_size, shapes.crop)
    labels = torch.randint(NUM_CLASSES, (shapes.batch_size, *shapes.crop)).to(shapes.device)

    def step() -> None:
        net.train()
        optimizer.zero_grad()
        criterion(net(inputs), labels).mean().backward()
        optimizer.step()

    return step


def inference(settings: Callable[[Shapes], Inference]) -> Callable[..., Callable[[], object]]:
    """Chances of all classes at every pixel of one image."""

    def work(net: nn.Module, shapes: Shapes) -> Callable[[], object]:
        asked = net, shapes.pixels(1, shapes.size), settings(shapes), NUM_CLASSES

        def ask() -> Tensor:
            net.eval()
            return probabilities(*asked)

        return ask

    return work


def in_windows(shapes: Shapes) -> Inference:
    """Windows of the size of a training crop, a usual stride apart."""
    return Inference(crop=shapes.crop, windows=shapes.windows)


NETS = [
    Net("fcn_resnet18", "batch", 13_546_579),
    Net("fcn_resnet18", "group", 13_546_579),
    Net("fcn_knresnet18", "kernel", 13_525_380),
]
BASE = NETS[0]
WORKS = [
    Work("training step", training, lambda shapes: shapes.batch_size),
    Work("inference, whole", inference(lambda shapes: Inference()), lambda shapes: 1),
    Work("inference, windows", inference(in_windows), lambda shapes: 1),
]


def make(net: Net, device: torch.device) -> nn.Module:
    """The net with the same weights every time."""
    torch.manual_seed(SEED)
    return create_model(net.model, num_classes=NUM_CLASSES, norm=net.norm).to(device)


def memory_of(sender: Connection, net: str, work: str, shapes: Shapes, threads: int) -> None:
    """Send the bytes that one work of a net takes; for a process of its own."""
    torch.set_num_threads(threads)
    cuda = shapes.device.type == "cuda"
    before = 0 if cuda else peak_memory(shapes.device)
    do = WORKS[int(work)].of(make(NETS[int(net)], shapes.device), shapes)
    do()
    sender.send({"bytes": peak_memory(shapes.device) - before})
