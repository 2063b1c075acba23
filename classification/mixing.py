"""What happens to inputs once pixels are scaled: rectangles erased, images mixed in pairs.

Draws are functions of (seed, epoch, sample number), those of a pair of its first sample's. Pairs
are neighbors, which `Sampling.together` keeps in one batch: what is mixed with what depends
neither on ranks nor on passes. Shapes: N sample, C channel, H W pixels, P pair, K class.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from scipy.special import betaincinv
from torch import Tensor

from classification.augment_config import Augment
from knorm.training.seeds import draw, mix, uniform
from knorm.vision.geometry import draw_boxes

ERASE, BOX, WHICH, MIXUP, CUTMIX, ROW, COLUMN = range(100, 107)  # apart from augment's
ERASED_AREA, ERASED_SHAPE = (0.02, 0.33), (1 / 3.3, 1 / 0.3)  # as torchvision's RandomErasing


class Mixed(NamedTuple):
    """A batch whose pairs are mixed."""

    inputs: Tensor
    """(N, C, H, W)"""
    labels: Tensor
    """(N,): the class that weighs most"""
    targets: Tensor
    """(N, K) probabilities"""


def erased(inputs: Tensor, samples: Tensor, probability: float, *, seed: int, epoch: int) -> Tensor:
    """Inputs (N, C, H, W) of which some have a rectangle of 0.

    0 is black where pixels are only scaled, and the mean color where they are standardized.
    """
    key, samples = mix(seed, epoch), samples.to(inputs.device)
    sides = torch.tensor(inputs.shape[2:], device=inputs.device).expand(len(samples), 2)
    boxes, fits = draw_boxes(mix(key, BOX), samples, sides, ERASED_AREA, ERASED_SHAPE, inside=True)
    happens = fits & (uniform(mix(key, ERASE), samples) < probability)
    inside = within(boxes, inputs.shape[2], inputs.shape[3])
    return inputs.masked_fill((inside & happens[:, None, None])[:, None], 0.0)


def within(boxes: Tensor, height: int, width: int) -> Tensor:
    """(N, H, W): which pixels lie in the box (top, left, height, width) of their image."""
    top, left, high, wide = boxes[:, :, None].unbind(dim=1)
    rows = torch.arange(height, device=boxes.device)
    columns = torch.arange(width, device=boxes.device)
    rows_in = (rows >= top) & (rows < top + high)
    columns_in = (columns >= left) & (columns < left + wide)
    return rows_in[:, :, None] & columns_in[:, None, :]


def mixed(
    inputs: Tensor,
    labels: Tensor,
    samples: Tensor,
    augment: Augment,
    *,
    num_classes: int,
    seed: int,
    epoch: int,
) -> Mixed:
    """Every sample 2k of the batch mixed with 2k + 1 and the other way round, with one weight.

    A last sample without a neighbor stays as it is.
    """
    height, width = inputs.shape[2:]
    own = own_parts(samples[:-1:2].cpu(), augment, height, width, mix(seed, epoch))
    own = own.to(inputs.device)[:, None, None]  # P 1 1 H W
    targets = F.one_hot(labels, num_classes).float()
    targets = blended_pairs(targets, own.mean(dim=(3, 4)))
    return Mixed(blended_pairs(inputs, own), targets.argmax(dim=1), targets)


def blended_pairs(values: Tensor, own: Tensor) -> Tensor:
    """own * values + (1 - own) * the neighbors', `own` (P, 1, ...) for both of a pair."""
    paired = 2 * len(own)
    pairs = values[:paired].unflatten(0, (len(own), 2))
    blended = torch.lerp(pairs.flip(1), pairs, own).flatten(0, 1)
    return torch.cat([blended, values[paired:]]) if paired < len(values) else blended


def own_parts(first: Tensor, augment: Augment, height: int, width: int, key: int) -> Tensor:
    """(P, H, W): how much of each pixel is a sample's own, for pairs by their first sample."""
    ways = []
    if augment.mixup:
        own = beta(augment.mixup, mix(key, MIXUP), first)
        ways.append(own[:, None, None].expand(-1, height, width))
    if augment.cutmix:
        own = beta(augment.cutmix, mix(key, CUTMIX), first)
        ways.append((~within(cutmix_boxes(first, own, height, width, key), height, width)).float())
    which = draw(mix(key, WHICH), first, len(ways))
    return torch.where(which[:, None, None] == 0, ways[0], ways[-1])


def cutmix_boxes(first: Tensor, own: Tensor, height: int, width: int, key: int) -> Tensor:
    """(P, 4): boxes of 1 - own of the area about a point anywhere, cut at the border."""
    half = (1 - own).sqrt() / 2
    ends = []
    for purpose, side in ((ROW, height), (COLUMN, width)):
        middle, reach = draw(mix(key, purpose), first, side), (half * side).long()
        low, high = (middle - reach).clamp(min=0), (middle + reach).clamp(max=side)
        ends.append((low, high - low))
    return torch.stack([ends[0][0], ends[1][0], ends[0][1], ends[1][1]], dim=1)


def beta(alpha: float, key: int, positions: Tensor) -> Tensor:
    """For every position a number from Beta(alpha, alpha), float32 on the CPU."""
    quantiles = uniform(key, positions).double().numpy()
    return torch.from_numpy(betaincinv(alpha, alpha, quantiles)).float()
