"""Mother wavelets and their slopes. Each keeps to the published form, sign and scale included."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

MEXICAN_HAT_SCALE = 2 / (math.sqrt(3) * math.pi**0.25)
MORLET_FREQUENCY = 5.0
SHANNON_SERIES_BELOW = 0.1  # where the slope's quotient loses digits


class MotherWavelet(NamedTuple):
    """A function of z, element by element."""

    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]


def bell(z: Tensor) -> Tensor:
    """exp(-z^2 / 2)."""
    return z.square().mul(-0.5).exp()


def mexican_hat(z: Tensor) -> Tensor:
    """2 / (sqrt(3) pi^(1/4)) (z^2 - 1) exp(-z^2 / 2)."""
    return z.square().sub(1).mul(MEXICAN_HAT_SCALE) * bell(z)


def mexican_hat_slope(z: Tensor) -> Tensor:
    return (3 - z.square()).mul(z).mul(MEXICAN_HAT_SCALE) * bell(z)


def morlet(z: Tensor) -> Tensor:
    """cos(5 z) exp(-z^2 / 2)."""
    return z.mul(MORLET_FREQUENCY).cos() * bell(z)


def morlet_slope(z: Tensor) -> Tensor:
    angle = z * MORLET_FREQUENCY
    return (MORLET_FREQUENCY * angle.sin() + z * angle.cos()).neg() * bell(z)


def dog(z: Tensor) -> Tensor:
    """-z exp(-z^2 / 2), a derivative of Gauss's bell."""
    return -z * bell(z)


def dog_slope(z: Tensor) -> Tensor:
    return (z.square() - 1) * bell(z)


def meyer(z: Tensor) -> Tensor:
    """sin(pi |z|) a(|z|); a falls from 1 at 1/2 to 0 at 1, smoothly."""
    distance = z.abs()
    return (distance * math.pi).sin() * _fall(distance).cos()


def meyer_slope(z: Tensor) -> Tensor:
    distance = z.abs()
    angle, fall = distance * math.pi, _fall(distance)
    t = (2 * distance - 1).clamp(0, 1)
    fall_slope = math.pi * 140 * (t * (1 - t)).pow(3)
    return z.sign() * (math.pi * angle.cos() * fall.cos() - angle.sin() * fall.sin() * fall_slope)


def _fall(distance: Tensor) -> Tensor:
    """From 0 up to a distance of 1/2 to pi / 2 from 1 on."""
    t = (2 * distance - 1).clamp(0, 1)
    return math.pi / 2 * t.pow(4) * (35 - 84 * t + 70 * t.square() - 20 * t.pow(3))


def shannon(z: Tensor) -> Tensor:
    """sin(z) / z."""
    return torch.sinc(z / math.pi)


def shannon_slope(z: Tensor) -> Tensor:
    near = z.abs() < SHANNON_SERIES_BELOW
    far = torch.where(near, torch.ones_like(z), z)
    square = z.square()
    series = -z / 3 * (1 - square / 10 * (1 - square / 28 * (1 - square / 54)))
    return torch.where(near, series, (far.cos() - far.sin() / far) / far)


WAVELETS = {
    "mexican_hat": MotherWavelet(mexican_hat, mexican_hat_slope),
    "morlet": MotherWavelet(morlet, morlet_slope),
    "dog": MotherWavelet(dog, dog_slope),
    "meyer": MotherWavelet(meyer, meyer_slope),
    "shannon": MotherWavelet(shannon, shannon_slope),
}
