"""Where a growing function crosses zero, in few questions, for each may take seconds."""

from collections.abc import Callable
from typing import NamedTuple

TOLERANCE = 1e-4


class Point(NamedTuple):
    """A question and its answer; it holds unless `excess` is above 0."""

    x: float
    excess: float


def largest(
    excess: Callable[[float], float],
    start: float,
    bounds: tuple[float, float],
    *,
    whole: bool,
) -> float | None:
    """The largest x in `bounds` with excess(x) <= 0.

    Goes from `start` in growing strides until the border lies between two values, then asks next to
    where a straight line between them crosses zero; in the middle, where that did not help twice.

    Args:
        excess: Grows with x, or stays; may be infinite.
        start: A value in `bounds`, best one near the border.
        bounds: The smallest and the largest x, both above 0.
        whole: x is a whole number, and the answer exact; else it holds and lies below the border by
            at most `TOLERANCE` of itself.

    Returns:
        None where not even the smallest x holds.
    """
    lowest, highest = bounds
    settle = round if whole else float
    stride = 1.1
    low = high = Point(start, excess(start))
    while high.excess <= 0:
        if high.x == highest:
            return highest
        x = min(settle(high.x * stride), highest)
        low, high, stride = high, Point(x, excess(x)), stride**2
    while low.excess > 0:
        if low.x == lowest:
            return None
        x = max(settle(low.x / stride), lowest)
        low, high, stride = Point(x, excess(x)), low, stride**2
    return _between(excess, low, high, whole)


def _between(excess: Callable[[float], float], low: Point, high: Point, whole: bool) -> float:
    """The largest x that holds, between one that does and one that does not."""
    slow = 0
    while (gap := high.x - low.x) > (1 if whole else low.x * TOLERANCE):
        x = low.x + gap / 2 if slow == 2 else _near_the_crossing(low, high, whole)
        if whole:
            x = min(max(round(x), low.x + 1), high.x - 1)
        here = Point(x, excess(x))
        low, high = (here, high) if here.excess <= 0 else (low, here)
        slow = slow % 2 + 1 if high.x - low.x > gap / 2 else 0
    return low.x


def _near_the_crossing(low: Point, high: Point, whole: bool) -> float:
    """Beside the crossing of a straight line, on the side whose end is farther away.

    So that, where the line is right, this and the next such x enclose the border.
    """
    part = -low.excess / (high.excess - low.excess)  # 0 where `high` is infinite
    crossing = low.x + part * (high.x - low.x)
    aside = 0.5 if whole else low.x * TOLERANCE / 2
    return crossing - aside if part > 0.5 else crossing + aside
