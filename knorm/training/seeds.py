"""Random numbers as pure functions of what they are for: (seed, epoch, sample), (seed, step, rank).

Nothing is remembered between two draws, so the numbers depend neither on how many processes take
part nor on what was drawn before, and a run can go on from any step.
"""

import torch
from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15
ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))  # the finalizer of SplitMix64
MASK = (1 << 64) - 1


def mix(*words: int) -> int:
    """One number in [0, 2^63) from several; every word changes all of its bits."""
    state = 0
    for word in words:
        state = _scramble((state ^ (word & MASK)) + GOLDEN & MASK)
    return state >> 1


def _scramble(value: int) -> int:
    for shift, factor in ROUNDS:
        value = (value ^ (value >> shift)) * factor & MASK
    return value ^ (value >> 31)


def draw(key: int, positions: Tensor, choices: int) -> Tensor:
    """For every position an integer in [0, choices), a function of `key` and position alone."""
    value = positions.long() * _signed(GOLDEN) + _signed(key)
    for shift, factor in ROUNDS:
        value = (value ^ _shift_right(value, shift)) * _signed(factor)
    value = value ^ _shift_right(value, 31)
    return _shift_right(value, 1) % choices


def uniform(key: int, positions: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
    """For every position a float32 from [low, high], a function of `key` and position alone."""
    steps = 1 << 24  # all of them exact in float32
    return low + (high - low) * (draw(key, positions, steps).float() / steps)


def _shift_right(value: Tensor, bits: int) -> Tensor:
    """Logical shift: torch's own fills with the sign bit."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _signed(word: int) -> int:
    """The 64-bit word as torch's int64 holds it."""
    word &= MASK
    return word - (1 << 64) if word >= 1 << 63 else word


def seed_torch(*words: int) -> None:
    """Seed torch's global generators of all devices with a function of `words`."""
    torch.manual_seed(mix(*words))
