"""Images made on the spot, for trying things out: nothing to download, any size."""

import torch
import torch.nn.functional as F
from torch import Tensor

from classification.data_config import Synthetic
from knorm.training.seeds import mix

COARSE = 4  # points along a side at which a pattern is drawn; between them it is smooth
MIDDLE, DEVIATION = 0.5, 0.2  # of the patterns, pixels in [0, 1]
CHUNK = 1024  # images made at once
PATTERNS, TRAIN, TEST = range(3)  # what a draw is for


def synthetic_images(made: Synthetic, *, train: bool) -> tuple[Tensor, Tensor]:
    """uint8 images (N, C, S, S) and labels (N,) of a split: the pattern of a class, and noise.

    A function of `made` alone; more images of the same seed begin with the same ones.
    """
    count, purpose = (made.train, TRAIN) if train else (made.test, TEST)
    patterns, labels = class_patterns(made), torch.arange(count) % made.classes
    generator = torch.Generator().manual_seed(mix(made.seed, purpose))
    parts = []
    for part in labels.split(CHUNK):
        noise = torch.randn(CHUNK, *patterns.shape[1:], generator=generator)[: len(part)]
        pixels = patterns[part] + made.noise * noise
        parts.append((255 * pixels).round_().clamp_(0, 255).to(torch.uint8))
    return torch.cat(parts), labels


def class_patterns(made: Synthetic) -> Tensor:
    """(K, C, S, S) float32, mostly in [0, 1]."""
    generator = torch.Generator().manual_seed(mix(made.seed, PATTERNS))
    coarse = torch.randn(made.classes, made.channels, COARSE, COARSE, generator=generator)
    size = (made.image_size, made.image_size)
    smooth = F.interpolate(coarse, size, mode="bilinear", align_corners=True)
    return MIDDLE + DEVIATION * smooth
