"""Settings of inference: how a net is asked about an image of any size."""

from dataclasses import dataclass

from knorm.training.mistakes import check_positive, check_range

MOST_SIDE, MOST_SCALE = 10**5, 16.0
Sides = tuple[int, int]


@dataclass(kw_only=True)
class Inference:
    """The image as a whole, or in windows; its chances are means over all views of it."""

    crop: Sides | None = None
    """height and width of sliding windows; null: the image as a whole"""
    stride: Sides | None = None
    """from one window to the next, down and across; null: two thirds of the window"""
    windows: int = 4
    """windows that the net sees at a time"""
    scales: tuple[float, ...] = (1.0,)
    """factors of size at which the net sees the image"""
    flip: bool = False
    """at every scale also mirrored"""

    def __post_init__(self) -> None:
        for name in ("crop", "stride"):
            for side in getattr(self, name) or ():
                check_range(f"inference.{name}", side, 1, MOST_SIDE)
        if self.stride is not None:
            self._check_stride(self.stride)
        check_range("inference.windows", self.windows, 1, MOST_SIDE)
        if not self.scales:
            raise ValueError("inference.scales is empty; give 1.0 for the size as it is")
        for scale in self.scales:
            check_positive("inference.scales", scale)
            check_range("inference.scales", scale, 0, MOST_SCALE)

    def _check_stride(self, stride: Sides) -> None:
        if self.crop is None:
            raise ValueError("inference.stride belongs to inference.crop, which is not given")
        if any(step > side for step, side in zip(stride, self.crop, strict=True)):
            raise ValueError(
                f"inference.stride {list(stride)} is more than inference.crop {list(self.crop)}: "
                "pixels between windows would be left out"
            )

    @property
    def steps(self) -> Sides:
        """The stride, given or usual; (0, 0) without windows."""
        sides = self.crop or (0, 0)
        return self.stride or (-(-2 * sides[0] // 3), -(-2 * sides[1] // 3))
