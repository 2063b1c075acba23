"""Augmentation of whole batches on the device, drawn for each sample.

What happens to a sample is a function of (seed, epoch, sample number): the same in every batch,
on every rank and for every number of processes. Shapes: N sample, C channel, H W pixels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from classification.config import Augment
from knorm.training.seeds import draw, mix

VERTICAL, HORIZONTAL, FLIP = range(3)  # what a draw is for


def augmented(
    images: Tensor, samples: Tensor, augment: Augment, *, seed: int, epoch: int
) -> Tensor:
    """Random crop and flip of uint8 images (N, C, H, W) with sample numbers (N,).

    Each output pixel is looked up once, whatever is switched on.
    """
    padding, flip = augment.crop_padding or 0, bool(augment.flip)
    if not padding and not flip:
        return images
    key, samples = mix(seed, epoch), samples.to(images.device)
    height, width = images.shape[2:]
    rows = torch.arange(height, device=images.device) + _offset(key, VERTICAL, samples, padding)
    columns = torch.arange(width, device=images.device).expand(len(samples), width)
    if flip:
        mirrored = draw(mix(key, FLIP), samples, 2).bool()[:, None]
        columns = torch.where(mirrored, columns.flip(1), columns)
    columns = columns + _offset(key, HORIZONTAL, samples, padding)
    padded = F.pad(images, (padding,) * 4).flatten(2)  # N C (H + 2 padding)(W + 2 padding)
    pixels = rows[:, :, None] * (width + 2 * padding) + columns[:, None, :]  # N H W
    pixels = pixels.flatten(1)[:, None].expand(-1, images.shape[1], -1)
    return padded.gather(2, pixels).view(images.shape)


def _offset(key: int, purpose: int, samples: Tensor, padding: int) -> Tensor:
    """Where each crop begins, (N, 1)."""
    return draw(mix(key, purpose), samples, 2 * padding + 1)[:, None]


def to_input(
    images: Tensor, mean: Tensor, std: Tensor, memory_format: torch.memory_format
) -> Tensor:
    """uint8 images to what the net gets: pixels in [0, 1], then minus mean over deviation."""
    scaled = images.float().div_(255).sub_(mean).div_(std)
    return scaled.contiguous(memory_format=memory_format)
