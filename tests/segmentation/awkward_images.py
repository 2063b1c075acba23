"""Prints the numbers of a net on splits of awkward images; launched with 1, 2 and 3 processes.

Every rank starts with other buffers and in another state of torch's random numbers, as ranks do
after training; the net draws in evaluation.
"""

import json

import torch
from accelerate import Accelerator
from torch import nn

from knorm.training.launch import start
from knorm.training.settings import Launch
from segmentation.classes import IGNORE
from segmentation.evaluation_numbers import Evaluated, evaluate_images
from segmentation.inference_config import Inference

SIZES = ((4, 4), (9, 5), (1, 1), (3, 20), (17, 11), (8, 8), (2, 31))
COUNTS = (1, 2, 5, 7)
K = 4
SETTINGS = {
    "whole": Inference(),
    "windows": Inference(crop=(6, 7), windows=2, scales=(0.5, 1.0), flip=True),
}


class Noisy(nn.Module):
    """Draws in evaluation."""

    def forward(self, x):
        return x + torch.randn_like(x)


def make_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, K, 3, padding=1), nn.BatchNorm2d(K), Noisy(), nn.Dropout())


def make_images() -> list[tuple[int, torch.Tensor, torch.Tensor]]:
    """Numbers, images, labels; a fifth of the pixels and all of one image are ignored."""
    generator, images = torch.Generator().manual_seed(1), []
    for number, size in enumerate(SIZES):
        pixels = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator)
        labels = torch.randint(0, K + 1, size, dtype=torch.uint8, generator=generator)
        labels[(labels == K) | (number == 3)] = IGNORE
        images.append((number, pixels, labels))
    return images


def evaluated(
    accelerator: Accelerator, net: nn.Module, count: int, settings: Inference, kept: int = 3
) -> Evaluated:
    """Of the first images, of which this rank gets its share."""
    rank, num_ranks = accelerator.process_index, accelerator.num_processes
    return evaluate_images(
        accelerator,
        net,
        make_images()[:count][rank::num_ranks],
        lambda images: images.float() / 64 - 2,
        num_images=count,
        num_classes=K,
        settings=settings,
        seed=3,
        kept=kept,
    )


def main() -> None:
    """Matrix and values of every number of images, for every settings."""
    accelerator = start(Launch(cpu=True, threads=1))
    net = make_net()
    torch.manual_seed(accelerator.process_index)
    net[1].running_mean += accelerator.process_index
    found = {}
    for name, settings in SETTINGS.items():
        for count in COUNTS:
            matrix, images, first = evaluated(accelerator, net, count, settings)
            values = {key: column.tolist() for key, column in images.items()}
            maps = [predicted.tolist() for predicted in first]
            found[f"{name} {count}"] = values | {"matrix": matrix.tolist(), "first": maps}
    if accelerator.is_main_process:
        print(json.dumps(found))
    accelerator.end_training()


if __name__ == "__main__":
    main()
