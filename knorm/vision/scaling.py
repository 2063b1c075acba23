"""How pixels are scaled before a net sees them: the settings that every set of images has."""

from collections.abc import Sequence

from knorm.training.mistakes import check_positive, check_range


def check_scaling(
    scaling: str, mean: Sequence[float] | None, std: Sequence[float] | None, channels: int
) -> None:
    """Raise ValueError unless mean and deviation are there where they are used, one a channel."""
    for name, numbers in (("mean", mean), ("std", std)):
        if (scaling == "fixed") != (numbers is not None):
            raise ValueError(
                f"data.{name} belongs to data.scaling fixed, which needs it, "
                f"got {numbers} with {scaling}"
            )
        if numbers is not None and len(numbers) != channels:
            raise ValueError(
                f"data.{name} needs {channels} numbers, one for each channel, got {numbers}"
            )
    for number in mean or ():
        check_range("data.mean", number, 0, 1)
    for number in std or ():
        check_positive("data.std", number)
