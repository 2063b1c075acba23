"""The largest number for which something holds, in few questions, for each may take seconds."""

from collections.abc import Callable

TOLERANCE = 5e-4


def largest(
    holds: Callable[[float], bool], start: float, bounds: tuple[float, float], *, whole: bool
) -> float | None:
    """The largest x in `bounds` that holds, where all above some border do not.

    Goes from `start` in growing strides until the border lies between two values, then halves their
    distance.

    Args:
        holds: True below the border, and false above it.
        start: A value in `bounds`, best one near the border.
        bounds: The smallest and the largest x, both above 0.
        whole: x is a whole number, and the answer exact; else it holds and lies below the border by
            at most `TOLERANCE` of itself.

    Returns:
        None where not even the smallest x holds.
    """
    lowest, highest = bounds
    low = high = start
    stride = 1.1
    settle = round if whole else float
    if holds(start):
        while low == high or holds(high):
            if high == highest:
                return highest
            low, high, stride = high, min(settle(high * stride), highest), stride**2
    else:
        while low == high or not holds(low):
            if low == lowest:
                return None
            low, high, stride = max(settle(low / stride), lowest), low, stride**2
    while whole or high > low * (1 + TOLERANCE):
        middle = settle((low + high) / 2)
        if middle in (low, high):
            break
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
