"""Where pixels of an image come from: boxes, crops that are resized, maps that keep lines straight.

Shapes: N sample, C channel, H W pixels, S side of a resized crop. Every sample has its own box or
map; nothing is drawn in batches, so a sample's pixels do not depend on the others.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from knorm.training.seeds import mix, uniform

ATTEMPTS = 10  # as many boxes are drawn, and the first that fits is taken
AREA, SHAPE, TOP, LEFT = range(4)  # what a draw is for

Range = tuple[float, float]


def draw_boxes(
    key: int, samples: Tensor, sides: Tensor, area: Range, shape: Range, *, inside: bool = False
) -> tuple[Tensor, Tensor]:
    """(top, left, height, width) (N, 4) in images of `sides` (N, 2), and whether it fits (N,).

    The part of the image's area is uniform in `area`, the logarithm of width over height in
    `shape`, the place among those possible. `inside`: shorter than both sides of the image.
    """

    def attempts(purpose: int, low: float, high: float) -> Tensor:
        keys = [mix(key, purpose, attempt) for attempt in range(ATTEMPTS)]
        return torch.stack([uniform(each, samples, low, high) for each in keys], dim=1)

    areas = attempts(AREA, *area) * sides.prod(dim=1, keepdim=True)
    shapes = attempts(SHAPE, math.log(shape[0]), math.log(shape[1])).exp()
    drawn = torch.stack([areas / shapes, areas * shapes], dim=2).sqrt().round().long()
    fits = ((drawn > 0) & (drawn <= (sides - int(inside))[:, None])).all(dim=2)  # N attempts
    first = fits.int().argmax(dim=1)
    size = drawn[torch.arange(len(drawn), device=drawn.device), first]
    place = torch.stack([uniform(mix(key, purpose), samples) for purpose in (TOP, LEFT)], dim=1)
    corner = (place * (sides - size + 1)).long()
    return torch.cat([corner, size], dim=1), fits.any(dim=1)


def crop_boxes(key: int, samples: Tensor, sides: Tensor, area: Range, shape: Range) -> Tensor:
    """The boxes (N, 4) of random-resized-crop; where none fits the largest allowed in the middle.

    As torchvision's RandomResizedCrop (Szegedy et al., arXiv:1409.4842).
    """
    boxes, fits = draw_boxes(key, samples, sides, area, shape)
    height, width = sides.unbind(dim=1)
    size = torch.stack(
        [
            torch.minimum(height, (width / shape[0]).round().long()),
            torch.minimum(width, (height * shape[1]).round().long()),
        ],
        dim=1,
    )
    middle = torch.cat([(sides - size) // 2, size], dim=1)
    return torch.where(fits[:, None], boxes, middle)


def resized(images: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """The boxes (N, 4) of uint8 images (N, C, H, W), resized to `size`: bilinear, antialiased.

    Resizing is linear along each axis, so it is one small matrix for each sample and axis.
    """
    channels, height, width = images.shape[1:]
    rows = _resizing(boxes[:, 0], boxes[:, 2], height, size[0])  # N S H
    columns = _resizing(boxes[:, 1], boxes[:, 3], width, size[1])  # N S W
    lines = images.transpose(1, 2).float().flatten(2)  # N H CW
    lines = (rows @ lines).view(-1, size[0] * channels, width)
    pixels = (lines @ columns.mT).view(-1, size[0], channels, size[1])
    pixels = pixels.round_().clamp_(0, 255).to(torch.uint8)
    return pixels.transpose(1, 2).contiguous()


def _resizing(first: Tensor, length: Tensor, side: int, size: int) -> Tensor:
    """(N, size, side): weights of the pixels of a line in each pixel of the resized part."""
    first, scale = first[:, None, None].float(), length[:, None, None].float() / size
    line = torch.arange(side, device=first.device)
    middles = first + scale * (torch.arange(size, device=first.device)[:, None] + 0.5)
    distance = (line + 0.5 - middles).abs() / scale.clamp(min=1)
    within = (line >= first) & (line < first + length[:, None, None])
    weights = (1 - distance).clamp_(min=0) * within
    return weights / weights.sum(dim=2, keepdim=True)


def inverse_maps(
    *,
    degrees: Tensor,
    shift: Tensor,
    scale: Tensor,
    shear: Tensor,
    center: tuple[float, float] = (0.0, 0.0),
) -> Tensor:
    """Where each output pixel (x, y) comes from, (N, 2, 3); the origin is the image's middle.

    The image is sheared (N, 2), scaled (N,) and rotated clockwise (N,) about `center`, then
    shifted (N, 2), x before y; angles in degrees: torchvision's `affine`.
    """
    turn, (shear_x, shear_y) = degrees.deg2rad(), shear.deg2rad().unbind(dim=1)
    a = (turn - shear_y).cos() / shear_y.cos()
    c = (turn - shear_y).sin() / shear_y.cos()
    b = -(a * shear_x.tan() + turn.sin())
    d = turn.cos() - c * shear_x.tan()
    linear = torch.stack([d, -b, -c, a], dim=1).view(-1, 2, 2) / scale[:, None, None]
    middle = torch.tensor(center, dtype=linear.dtype, device=linear.device)
    offset = middle - (linear @ (middle + shift)[:, :, None])[:, :, 0]
    return torch.cat([linear, offset[:, :, None]], dim=2)


def mapped(images: Tensor, maps: Tensor) -> Tensor:
    """uint8 images (N, C, H, W) with each pixel taken from where its map says, black outside."""
    height, width = images.shape[2:]
    x = torch.arange(width, device=images.device) - (width - 1) / 2
    y = torch.arange(height, device=images.device) - (height - 1) / 2
    places = torch.stack(
        [*torch.meshgrid(x, y, indexing="xy"), torch.ones_like(x).expand(height, -1)]
    )
    half = torch.tensor([width / 2, height / 2], device=images.device)
    grid = places.flatten(1).T @ (maps.float() / half[:, None]).mT  # N HW 2
    grid = grid.view(-1, height, width, 2)
    return F.grid_sample(images.float(), grid, "nearest", align_corners=False).to(torch.uint8)
