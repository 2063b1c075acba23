"""Prints the numbers of a net on data sets of awkward sizes; launched with 1, 2 and 3 processes.

Every rank starts with other buffers and in another state of torch's random numbers, as ranks do
after training.
"""

import json

import torch
from torch import nn

from classification.config import Loss, parse_recipe
from classification.data import ImageData
from classification.readers import ResidentSplit
from classification.task import Classification, evaluate_split
from knorm.training.launch import start
from knorm.training.settings import Launch

SIZES = (1, 7, 101, 997)


def main() -> None:
    """Loss, accuracies and confusion matrix of every size."""
    accelerator = start(Launch(cpu=True, threads=1))
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 7))
    generator = torch.Generator().manual_seed(1)
    recipe = parse_recipe(["--eval_batch_size=8"])
    task = Classification(Loss(), 7)
    found = {}
    torch.manual_seed(accelerator.process_index)
    net[1].running_mean += accelerator.process_index
    for size in SIZES:
        pixels = torch.randint(0, 256, (size, 1, 4, 4), dtype=torch.uint8, generator=generator)
        labels = torch.randint(0, 7, (size,), generator=generator)
        data = ImageData(
            splits={"test": ResidentSplit(pixels, labels)},
            classes=[str(name) for name in range(7)],
            mean=torch.zeros(1, 1, 1),
            std=torch.ones(1, 1, 1),
            accelerator=accelerator,
            memory_format=torch.contiguous_format,
        )
        values = evaluate_split(net, data, task, "test", recipe)
        matrix = task.confusion_matrix(values, labels).tolist()
        found[size] = task.summary(values, labels) | {"confusion": matrix}
    if accelerator.is_main_process:
        print(json.dumps(found))
    accelerator.end_training()


if __name__ == "__main__":
    main()
