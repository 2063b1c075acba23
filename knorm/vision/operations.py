"""Operations on images, each sample with a strength of its own: those of the policies and jitter.

An operation takes uint8 images (N, C, H, W) and strengths (N,) and returns such images. The
formulas are those of torchvision.transforms.v2.functional. Grey images (C = 1) have no saturation
and no hue; the operations on them change nothing there.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from knorm.vision.geometry import inverse_maps, mapped

Operation = Callable[[Tensor, Tensor], Tensor]

GREY = (0.2989, 0.587, 0.114)  # red, green and blue in brightness, ITU-R BT.601


def apply(
    operations: Sequence[Operation], images: Tensor, chosen: Tensor, strengths: Tensor
) -> Tensor:
    """Each sample changed by the operation that its number in `chosen` (N,) names; -1: none.

    `chosen` and `strengths` are on the CPU, so that no accelerator is waited for.
    """
    changed = images.clone()
    for number, operation in enumerate(operations):
        samples = (chosen == number).nonzero()[:, 0]
        if len(samples):
            strength = strengths[samples].to(images.device)
            samples = samples.to(images.device)
            result = operation(images.index_select(0, samples), strength)
            changed.index_copy_(0, samples, result)
    return changed


def blended(images: Tensor, others: Tensor, part: Tensor) -> Tensor:
    """part * images + (1 - part) * others, cut to what a pixel can be."""
    part = part.float()[:, None, None, None]
    return (images * part + others * (1 - part)).clamp_(0, 255).to(torch.uint8)


def grey(images: Tensor) -> Tensor:
    """Brightness as whole numbers, (N, 1, H, W) float32."""
    if images.shape[1] == 1:
        return images.float()
    red, green, blue = (image * part for image, part in zip(images.unbind(1), GREY, strict=True))
    return (red + green + blue).floor_()[:, None]


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Black is 0, the image itself 1."""
    return blended(images, images.new_zeros(()), factor)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """The mean brightness is 0, the image itself 1."""
    return blended(images, grey(images).mean((1, 2, 3), keepdim=True), factor)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """The grey image is 0, the image itself 1."""
    return images if images.shape[1] == 1 else blended(images, grey(images), factor)


def sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """The image smoothed within its border is 0, the image itself 1."""
    channels, height, width = images.shape[1:]
    if min(height, width) < 3:
        return images
    kernel = torch.ones(3, 3, device=images.device)
    kernel[1, 1] = 5
    sharp, kernel = images.float(), (kernel / kernel.sum()).expand(channels, 1, 3, 3)
    smooth = F.conv2d(sharp, kernel, groups=channels).round_()
    inside = sharp[:, :, 1:-1, 1:-1]
    inside += (smooth - inside) * (1 - factor.float())[:, None, None, None]
    return sharp.clamp_(0, 255).to(torch.uint8)


def hue(images: Tensor, shift: Tensor) -> Tensor:
    """Colors turned by a part of the color circle, within [-0.5, 0.5]."""
    if images.shape[1] == 1:
        return images
    pixels = images.float() / 255
    red, green, blue = pixels.unbind(dim=1)
    value, lowest = pixels.amax(dim=1), pixels.amin(dim=1)
    chroma = value - lowest
    span = chroma.where(chroma > 0, torch.ones_like(chroma))
    sixths = torch.where(value == green, (blue - red) / span + 2, (red - green) / span + 4)
    sixths = torch.where(value == red, (green - blue) / span, sixths)
    turned = sixths + 6 * shift.float()[:, None, None]
    parts = []
    for offset in (5, 3, 1):  # from hue, value and chroma back to red, green and blue
        place = (turned + offset).remainder(6)
        parts.append(value - chroma * torch.minimum(place, 4 - place).clamp(0, 1))
    return (torch.stack(parts, dim=1) * (256 - 1e-3)).to(torch.uint8)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Only the highest bits of each pixel."""
    mask = 256 - 2 ** (8 - bits.long())
    return images & mask.to(torch.uint8)[:, None, None, None]


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Pixels inverted from a part of the range, in [0, 1], upwards."""
    return torch.where(images >= 255 * threshold.float()[:, None, None, None], ~images, images)


def invert(images: Tensor, _: Tensor) -> Tensor:
    """Black for white."""
    return ~images


def autocontrast(images: Tensor, _: Tensor) -> Tensor:
    """Every channel stretched over the whole range."""
    from torchvision.transforms.v2.functional import autocontrast

    return autocontrast(images)


def equalize(images: Tensor, _: Tensor) -> Tensor:
    """All values of a channel as frequent."""
    from torchvision.transforms.v2.functional import equalize

    return equalize(images)


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Counterclockwise about the middle."""
    zero, still = torch.zeros_like(degrees), degrees.new_zeros(len(degrees), 2)
    maps = inverse_maps(degrees=-degrees, shift=still, scale=zero + 1, shear=still)
    return mapped(images, maps)


def translate(axis: int) -> Operation:
    """By whole pixels, toward zero, along x (0) or y (1)."""

    def shifted(images: Tensor, pixels: Tensor) -> Tensor:
        zero = torch.zeros_like(pixels)
        shift = torch.stack([zero, zero], dim=1)
        shift[:, axis] = pixels.trunc()
        maps = inverse_maps(
            degrees=zero, shift=shift, scale=zero + 1, shear=torch.zeros_like(shift)
        )
        return mapped(images, maps)

    return shifted


def shear(axis: int) -> Operation:
    """About the first corner along x (0) or y (1), by so many pixels for each line."""

    def sheared(images: Tensor, slope: Tensor) -> Tensor:
        zero = torch.zeros_like(slope)
        angles = torch.stack([zero, zero], dim=1)
        angles[:, axis] = slope.atan().rad2deg()
        maps = inverse_maps(
            degrees=zero,
            shift=torch.zeros_like(angles),
            scale=zero + 1,
            shear=angles,
            center=(-images.shape[3] / 2, -images.shape[2] / 2),
        )
        return mapped(images, maps)

    return sheared


def to_input(
    images: Tensor, mean: Tensor, std: Tensor, memory_format: torch.memory_format
) -> Tensor:
    """uint8 images to what the net gets: pixels in [0, 1], then minus mean over deviation."""
    scaled = images.float().div_(255).sub_(mean).div_(std)
    return scaled.contiguous(memory_format=memory_format)
