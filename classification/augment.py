"""Augmentation of whole batches on the device, drawn for each sample.

What happens to a sample is a function of (seed, epoch, sample number): the same in every batch,
on every rank and for every number of processes. Shapes: N sample, C channel, H W pixels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from classification.augment_config import Affine, Augment, Jitter
from classification.policies import apply_policy
from knorm.training.seeds import draw, mix, uniform
from knorm.vision import operations
from knorm.vision.geometry import crop_boxes, inverse_maps, mapped, resized
from knorm.vision.operations import Operation

VERTICAL, HORIZONTAL, FLIP, BOX, POLICY, AFFINE, JITTER = range(7)  # what a draw is for
ANGLE, SHIFT_X, SHIFT_Y, SCALE, SHEAR = range(5)  # of an affine map


def augmented(
    images: Tensor, samples: Tensor, augment: Augment, *, seed: int, epoch: int
) -> Tensor:
    """uint8 images (N, C, H, W) with sample numbers (N,), changed as `augment` says.

    Erasing and mixing follow when pixels have been scaled, see `mixing`.
    """
    key = mix(seed, epoch)
    if augment.resized_crop is not None:
        images = cropped(images, samples, augment, key)
    images = shifted(images, samples.to(images.device), augment, key)
    if augment.policies:
        images = apply_policy(augment.policies, images, samples, mix(key, POLICY))
    if augment.affine != Affine():
        images = moved(images, samples, augment.affine, mix(key, AFFINE))
    if augment.jitter != Jitter():
        images = jittered(images, samples, augment.jitter, mix(key, JITTER))
    return images


def boxes_of(samples: Tensor, sides: Tensor, augment: Augment, key: int) -> Tensor:
    """Boxes (N, 4) of random-resized-crop in images of `sides` (N, 2)."""
    assert augment.resized_crop is not None
    area, shape = augment.resized_crop, augment.resized_crop_ratio
    return crop_boxes(mix(key, BOX), samples, sides, area, shape)


def cropped(images: Tensor, samples: Tensor, augment: Augment, key: int) -> Tensor:
    """Random crops, resized to the size of the images."""
    height, width = images.shape[2:]
    samples = samples.to(images.device)
    sides = torch.tensor([height, width], device=images.device).expand(len(samples), 2)
    return resized(images, boxes_of(samples, sides, augment, key), (height, width))


def shifted(images: Tensor, samples: Tensor, augment: Augment, key: int) -> Tensor:
    """Random crop of the padded images, and flip.

    Each output pixel is looked up once, whatever is switched on.
    """
    padding, flip = augment.crop_padding or 0, bool(augment.flip)
    if not padding and not flip:
        return images
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


def moved(images: Tensor, samples: Tensor, affine: Affine, key: int) -> Tensor:
    """A random affine map of each image, shifts by whole pixels, the nearest pixel taken."""
    samples, (height, width) = samples.to(images.device), images.shape[2:]

    def within(purpose: int, most: float) -> Tensor:
        return uniform(mix(key, purpose), samples, -most, most)

    shift_x = within(SHIFT_X, affine.translate * width).round()
    shift_y = within(SHIFT_Y, affine.translate * height).round()
    shear_x = within(SHEAR, affine.shear)
    maps = inverse_maps(
        degrees=within(ANGLE, affine.degrees),
        shift=torch.stack([shift_x, shift_y], dim=1),
        scale=uniform(mix(key, SCALE), samples, *affine.scale),
        shear=torch.stack([shear_x, torch.zeros_like(shear_x)], dim=1),
    )
    return mapped(images, maps)


def jittered(images: Tensor, samples: Tensor, jitter: Jitter, key: int) -> Tensor:
    """Color jitter: the operations that are switched on, in an order drawn for each sample."""
    ranges: dict[Operation, tuple[float, float]] = {}
    for operation, most in (
        (operations.brightness, jitter.brightness),
        (operations.contrast, jitter.contrast),
        (operations.saturation, jitter.saturation),
    ):
        if most:
            ranges[operation] = (max(0.0, 1 - most), 1 + most)
    if jitter.hue:
        ranges[operations.hue] = (-jitter.hue, jitter.hue)
    samples, count = samples.cpu(), len(ranges)
    strengths = [
        uniform(mix(key, number), samples, *limits) for number, limits in enumerate(ranges.values())
    ]
    places = [uniform(mix(key, count + number), samples) for number in range(count)]
    order = torch.stack(places, dim=1).argsort(dim=1)  # N turn: number of the operation
    drawn = torch.stack(strengths, dim=1).gather(1, order)
    for turn in range(count):
        images = operations.apply(list(ranges), images, order[:, turn], drawn[:, turn])
    return images
