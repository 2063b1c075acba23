"""Policies that were searched for or need no search: AutoAugment and TrivialAugmentWide.

Sources: Cubuk et al., arXiv:1805.09501, appendix A; Müller and Hutter, arXiv:2103.10158, table 6.
What the papers leave open (the point that a shear leaves alone, black outside, the nearest pixel)
is as in torchvision.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from classification.augment_config import PolicyName
from knorm.training.seeds import draw, mix, uniform
from knorm.vision import operations
from knorm.vision.operations import Operation

ROW, STRENGTH, SIGN, HAPPENS, WHICH = range(5)  # what a draw is for
AUTO_BINS, WIDE_BINS = 10, 31  # strengths that an operation can have


@dataclass(frozen=True)
class Kind:
    """An operation of the policies, and what its bins of strength stand for."""

    operation: Operation
    auto: tuple[float, float] = (0.0, 0.0)
    """AutoAugment: strength of the first and of the last bin"""
    wide: tuple[float, float] = (0.0, 0.0)
    """TrivialAugmentWide: the same"""
    signed: bool = False
    """whether half of the samples get the opposite strength"""
    side: int | None = None
    """AutoAugment's strengths are parts of this side of the image: 0 height, 1 width"""


def around_one(operation: Operation) -> Operation:
    """An operation whose factor 1 changes nothing, for strengths of which 0 changes nothing."""
    return lambda images, strength: operation(images, 1 + strength)


def kept_bits(images: Tensor, strength: Tensor) -> Tensor:
    """`posterize` for strengths between whole bits."""
    return operations.posterize(images, strength.round())


def unchanged(images: Tensor, _: Tensor) -> Tensor:
    """The images."""
    return images


ENHANCE = {"auto": (0.0, 0.9), "wide": (0.0, 0.99), "signed": True}
SHEAR = {"auto": (0.0, 0.3), "wide": (0.0, 0.99), "signed": True}
MOVE = {"auto": (0.0, 150 / 331), "wide": (0.0, 32.0), "signed": True}

KINDS = {
    "ShearX": Kind(operations.shear(0), **SHEAR),
    "ShearY": Kind(operations.shear(1), **SHEAR),
    "TranslateX": Kind(operations.translate(0), **MOVE, side=1),
    "TranslateY": Kind(operations.translate(1), **MOVE, side=0),
    "Rotate": Kind(operations.rotate, auto=(0.0, 30.0), wide=(0.0, 135.0), signed=True),
    "Brightness": Kind(around_one(operations.brightness), **ENHANCE),
    "Color": Kind(around_one(operations.saturation), **ENHANCE),
    "Contrast": Kind(around_one(operations.contrast), **ENHANCE),
    "Sharpness": Kind(around_one(operations.sharpness), **ENHANCE),
    "Posterize": Kind(kept_bits, auto=(8.0, 4.0), wide=(8.0, 2.0)),
    "Solarize": Kind(operations.solarize, auto=(1.0, 0.0), wide=(1.0, 0.0)),
    "AutoContrast": Kind(operations.autocontrast),
    "Equalize": Kind(operations.equalize),
    "Identity": Kind(unchanged),  # TrivialAugmentWide has no operation from here on,
    "Invert": Kind(operations.invert),  # AutoAugment all but the one above
}
NAMES = tuple(KINDS)
NUM_WIDE = len(NAMES) - 1
OPERATIONS = [kind.operation for kind in KINDS.values()]
SIGNED = torch.tensor([kind.signed for kind in KINDS.values()])

# A line holds two operations in turn: name, probability, bin of strength (- where there is none).
AUTOAUGMENT = {
    "cifar10": """
        Invert 0.1 -  Contrast 0.2 6
        Rotate 0.7 2  TranslateX 0.3 9
        Sharpness 0.8 1  Sharpness 0.9 3
        ShearY 0.5 8  TranslateY 0.7 9
        AutoContrast 0.5 -  Equalize 0.9 -
        ShearY 0.2 7  Posterize 0.3 7
        Color 0.4 3  Brightness 0.6 7
        Sharpness 0.3 9  Brightness 0.7 9
        Equalize 0.6 -  Equalize 0.5 -
        Contrast 0.6 7  Sharpness 0.6 5
        Color 0.7 7  TranslateX 0.5 8
        Equalize 0.3 -  AutoContrast 0.4 -
        TranslateY 0.4 3  Sharpness 0.2 6
        Brightness 0.9 6  Color 0.2 8
        Solarize 0.5 2  Invert 0.0 -
        Equalize 0.2 -  AutoContrast 0.6 -
        Equalize 0.2 -  Equalize 0.6 -
        Color 0.9 9  Equalize 0.6 -
        AutoContrast 0.8 -  Solarize 0.2 8
        Brightness 0.1 3  Color 0.7 0
        Solarize 0.4 5  AutoContrast 0.9 -
        TranslateY 0.9 9  TranslateY 0.7 9
        AutoContrast 0.9 -  Solarize 0.8 3
        Equalize 0.8 -  Invert 0.1 -
        TranslateY 0.7 9  AutoContrast 0.9 -
    """,
    "imagenet": """
        Posterize 0.4 8  Rotate 0.6 9
        Solarize 0.6 5  AutoContrast 0.6 -
        Equalize 0.8 -  Equalize 0.6 -
        Posterize 0.6 7  Posterize 0.6 6
        Equalize 0.4 -  Solarize 0.2 4
        Equalize 0.4 -  Rotate 0.8 8
        Solarize 0.6 3  Equalize 0.6 -
        Posterize 0.8 5  Equalize 1.0 -
        Rotate 0.2 3  Solarize 0.6 8
        Equalize 0.6 -  Posterize 0.4 6
        Rotate 0.8 8  Color 0.4 0
        Rotate 0.4 9  Equalize 0.6 -
        Equalize 0.0 -  Equalize 0.8 -
        Invert 0.6 -  Equalize 1.0 -
        Color 0.6 4  Contrast 1.0 8
        Rotate 0.8 8  Color 1.0 2
        Color 0.8 8  Solarize 0.8 7
        Sharpness 0.4 7  Invert 0.6 -
        ShearX 0.6 5  Equalize 1.0 -
        Color 0.4 0  Equalize 0.6 -
        Equalize 0.4 -  Solarize 0.2 4
        Solarize 0.6 5  AutoContrast 0.6 -
        Invert 0.6 -  Equalize 1.0 -
        Color 0.6 4  Contrast 1.0 8
        Equalize 0.8 -  Equalize 0.6 -
    """,
    "svhn": """
        ShearX 0.9 4  Invert 0.2 -
        ShearY 0.9 8  Invert 0.7 -
        Equalize 0.6 -  Solarize 0.6 6
        Invert 0.9 -  Equalize 0.6 -
        Equalize 0.6 -  Rotate 0.9 3
        ShearX 0.9 4  AutoContrast 0.8 -
        ShearY 0.9 8  Invert 0.4 -
        ShearY 0.9 5  Solarize 0.2 6
        Invert 0.9 -  AutoContrast 0.8 -
        Equalize 0.6 -  Rotate 0.9 3
        ShearX 0.9 4  Solarize 0.3 3
        ShearY 0.8 8  Invert 0.7 -
        Equalize 0.9 -  TranslateY 0.6 6
        Invert 0.9 -  Equalize 0.6 -
        Contrast 0.3 3  Rotate 0.8 4
        Invert 0.8 -  TranslateY 0.0 2
        ShearY 0.7 6  Solarize 0.4 8
        Invert 0.6 -  Rotate 0.8 4
        ShearY 0.3 7  TranslateX 0.9 3
        ShearX 0.1 6  Invert 0.6 -
        Solarize 0.7 2  TranslateY 0.6 7
        ShearY 0.8 4  Invert 0.8 -
        ShearX 0.7 9  TranslateY 0.8 3
        ShearY 0.8 5  AutoContrast 0.7 -
        ShearX 0.7 2  Invert 0.1 -
    """,
}


Turn = tuple[Tensor, Tensor]  # operation (number in NAMES; -1: none) and strength, (N,) on the CPU


def apply_policy(
    policies: Sequence[PolicyName], images: Tensor, samples: Tensor, key: int
) -> Tensor:
    """uint8 images (N, C, H, W), changed by what their sample numbers (N,) draw.

    Each image first draws one of the policies, all equally probable.
    """
    samples = samples.cpu()
    which = draw(mix(key, WHICH), samples, len(policies))
    for number, policy in enumerate(policies):
        others = which != number
        for chosen, strengths in TURNS[policy](key, samples, *images.shape[2:]):
            chosen = chosen.masked_fill(others, -1)
            images = operations.apply(OPERATIONS, images, chosen, strengths)
    return images


def trivial_wide(key: int, samples: Tensor, height: int, width: int) -> Iterator[Turn]:
    """One operation for each sample at one strength, all equally probable."""
    chosen = draw(mix(key, ROW), samples, NUM_WIDE)
    table = torch.stack([torch.linspace(*kind.wide, WIDE_BINS) for kind in KINDS.values()])
    strengths = table[chosen, draw(mix(key, STRENGTH), samples, WIDE_BINS)]
    yield chosen, with_sign(strengths, chosen, mix(key, SIGN), samples)


def autoaugment(name: str) -> Callable[[int, Tensor, int, int], Iterator[Turn]]:
    """One of 25 pairs of operations for each sample, each with its probability and strength."""
    rows = [line.split() for line in AUTOAUGMENT[name].strip().splitlines()]

    def turns(key: int, samples: Tensor, height: int, width: int) -> Iterator[Turn]:
        table = auto_strengths(height, width)
        row = draw(mix(key, ROW), samples, len(rows))
        for turn in (0, 1):
            names, chances, bins = zip(
                *(line[3 * turn : 3 * turn + 3] for line in rows), strict=True
            )
            chosen = torch.tensor([NAMES.index(name) for name in names])[row]
            chance = torch.tensor([float(chance) for chance in chances])[row]
            place = torch.tensor([0 if number == "-" else int(number) for number in bins])[row]
            strengths = with_sign(table[chosen, place], chosen, mix(key, SIGN, turn), samples)
            happens = uniform(mix(key, HAPPENS, turn), samples) < chance
            yield chosen.where(happens, torch.full_like(chosen, -1)), strengths

    return turns


def auto_strengths(height: int, width: int) -> Tensor:
    """AutoAugment's strength of every operation of NAMES (row) and bin (column)."""
    rows = []
    for kind in KINDS.values():
        unit = 1 if kind.side is None else (height, width)[kind.side]
        rows.append(torch.linspace(kind.auto[0] * unit, kind.auto[1] * unit, AUTO_BINS))
    return torch.stack(rows)


def with_sign(strengths: Tensor, chosen: Tensor, key: int, samples: Tensor) -> Tensor:
    """Half of the strengths of signed operations turned into their opposites."""
    opposite = SIGNED[chosen] & draw(key, samples, 2).bool()
    return torch.where(opposite, -strengths, strengths)


TURNS: dict[PolicyName, Callable[[int, Tensor, int, int], Iterator[Turn]]] = {
    "cifar10": autoaugment("cifar10"),
    "imagenet": autoaugment("imagenet"),
    "svhn": autoaugment("svhn"),
    "trivial_wide": trivial_wide,
}
