"""What street scenes are drawn of. Every part is drawn twice: in color, and as its label.

The street is seen in perspective. A point on the ground has a nearness, 0 at the horizon and 1 at
the lower edge of the image, and a place across the street, in widths of the image at nearness 1.
Heights are parts of the image's height at nearness 1.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from segmentation.classes import CITYSCAPES_LABELS, Color

IDS = {label.name: label.id for label in CITYSCAPES_LABELS}
Point = tuple[float, float]


class Canvas:
    """An image and its label ids, drawn together."""

    def __init__(self, height: int, width: int, horizon: float, vanishing: float, kerb: float):
        """`horizon`, `vanishing`: row and column of the vanishing point; `kerb`: its place."""
        self.height, self.width = height, width
        self.horizon, self.vanishing, self.kerb = horizon, vanishing, kerb
        self.image = Image.new("RGB", (width, height))
        self.labels = Image.new("L", (width, height), IDS["unlabeled"])
        self._draws = ImageDraw.Draw(self.image), ImageDraw.Draw(self.labels)

    def ground(self, across: float, nearness: float) -> Point:
        """Column and row of a point on the street."""
        return (
            self.vanishing + nearness * across * self.width,
            self.horizon + nearness * (self.height - self.horizon),
        )

    def polygon(self, name: str, color: Color, points: Sequence[Point]) -> None:
        for draw, ink in zip(self._draws, (color, IDS[name]), strict=True):
            draw.polygon([(round(x), round(y)) for x, y in points], fill=ink)

    def box(
        self, name: str, color: Color, left: float, top: float, right: float, bottom: float
    ) -> None:
        """At least one pixel wide and high."""
        left, top = round(left), round(top)
        corners = (left, top, max(left, round(right) - 1), max(top, round(bottom) - 1))
        for draw, ink in zip(self._draws, (color, IDS[name]), strict=True):
            draw.rectangle(corners, fill=ink)

    def ellipse(
        self, name: str, color: Color, x: float, y: float, across: float, down: float
    ) -> None:
        """Around a middle, with two half axes."""
        corners = (round(x - across), round(y - down), round(x + across), round(y + down))
        for draw, ink in zip(self._draws, (color, IDS[name]), strict=True):
            draw.ellipse(corners, fill=ink)


def tone(random: np.random.RandomState, color: Color, spread: float = 12) -> Color:
    """A color near to one, lighter or darker as a whole and a little off in each channel."""
    shift = random.uniform(-spread, spread) + random.uniform(-spread, spread, 3) / 2
    red, green, blue = (int(value) for value in (np.array(color) + shift).clip(0, 255))
    return red, green, blue


def any_color(random: np.random.RandomState) -> Color:
    """Of clothes and cars."""
    red, green, blue = (int(value) for value in random.randint(15, 235, 3))
    return red, green, blue


def draw_car(
    canvas: Canvas, random: np.random.RandomState, x: float, y: float, tall: float
) -> None:
    """Standing at (x, y), seen from behind or from the side."""
    long = tall * (1.25 if random.rand() < 0.6 else 2.2)
    paint, glass = any_color(random), tone(random, (45, 55, 65))
    left, right = x - long / 2, x + long / 2
    for wheel in (0.2, 0.8):
        canvas.ellipse(
            "car", (20, 20, 22), left + wheel * long, y - 0.13 * tall, *[0.14 * tall] * 2
        )
    canvas.box("car", paint, left, y - 0.62 * tall, right, y - 0.12 * tall)
    roof = [(0.12, 0.6), (0.24, 1.0), (0.76, 1.0), (0.88, 0.6)]
    canvas.polygon("car", paint, [(left + u * long, y - v * tall) for u, v in roof])
    window = [(0.2, 0.64), (0.28, 0.92), (0.72, 0.92), (0.8, 0.64)]
    canvas.polygon("car", glass, [(left + u * long, y - v * tall) for u, v in window])
    for u in (0.06, 0.94):
        canvas.ellipse("car", (200, 40, 30), left + u * long, y - 0.45 * tall, *[0.06 * tall] * 2)


def draw_bus(
    canvas: Canvas, random: np.random.RandomState, x: float, y: float, tall: float
) -> None:
    """A tall box with a band of windows."""
    long = tall * random.uniform(0.9, 1.8)
    paint = tone(random, ((225, 190, 40), (205, 60, 45), (235, 235, 225))[random.randint(3)])
    left, right = x - long / 2, x + long / 2
    canvas.box("bus", (25, 25, 25), left + 0.1 * long, y - 0.2 * tall, right - 0.1 * long, y)
    canvas.box("bus", paint, left, y - tall, right, y - 0.1 * tall)
    for u in np.arange(0.06, 0.9, 0.22):
        pane = left + u * long
        canvas.box("bus", (50, 60, 72), pane, y - 0.88 * tall, pane + 0.18 * long, y - 0.5 * tall)


def draw_person(
    canvas: Canvas, random: np.random.RandomState, x: float, y: float, tall: float
) -> None:
    """Legs, trunk with arms, head."""
    trousers, shirt, skin = any_color(random), any_color(random), tone(random, (190, 145, 115), 40)
    step = random.uniform(0.03, 0.13) * tall
    for side in (-1, 1):
        middle = x + side * step
        foot = [(x, y - 0.5 * tall), (middle - 0.05 * tall, y), (middle + 0.05 * tall, y)]
        canvas.polygon("person", trousers, [*foot, (x + side * 0.09 * tall, y - 0.5 * tall)])
    shoulder = 0.15 * tall
    canvas.box("person", shirt, x - shoulder, y - 0.84 * tall, x + shoulder, y - 0.45 * tall)
    canvas.ellipse("person", skin, x, y - 0.91 * tall, 0.075 * tall, 0.09 * tall)


def draw_tree(
    canvas: Canvas, random: np.random.RandomState, x: float, y: float, tall: float
) -> None:
    """A trunk, and a crown of overlapping balls of leaves."""
    green = tone(random, (70, 105, 40), 25)
    canvas.box("vegetation", tone(random, (85, 65, 45)), x - 0.03 * tall, y - 0.6 * tall, x, y)
    for _ in range(9):
        middle = x + random.uniform(-0.22, 0.22) * tall, y - random.uniform(0.5, 0.9) * tall
        size = random.uniform(0.1, 0.2, 2) * tall
        canvas.ellipse("vegetation", tone(random, green, 18), *middle, *size)


def draw_pole(
    canvas: Canvas, random: np.random.RandomState, x: float, y: float, tall: float
) -> None:
    """A mast, often with a lamp."""
    grey, half = tone(random, (115, 115, 112), 30), max(1.0, 0.02 * tall)
    canvas.box("pole", grey, x - half, y - tall, x + half, y)
    if random.rand() < 0.5:
        side = 1 if x < canvas.vanishing else -1
        ends = sorted((x, x + side * 0.25 * tall))
        canvas.box("pole", grey, ends[0], y - tall, ends[1], y - tall + 2 * half)


def draw_light(
    canvas: Canvas, random: np.random.RandomState, x: float, y: float, tall: float
) -> None:
    """A pole with a dark case of three lamps, one of them lit."""
    half = max(1.0, 0.02 * tall)
    canvas.box("pole", tone(random, (95, 95, 95), 25), x - half, y - tall, x + half, y)
    wide, high, lit = 0.08 * tall, 0.27 * tall, random.randint(3)
    canvas.box("traffic light", (30, 32, 28), x - wide, y - tall, x + wide, y - tall + high)
    for place, color in enumerate(((250, 50, 40), (250, 190, 40), (60, 230, 110))):
        shown = color if place == lit else (58, 54, 44)
        row = y - tall + high * (0.2 + 0.3 * place)
        canvas.ellipse("traffic light", shown, x, row, 0.55 * wide, 0.55 * wide)


def draw_sign(
    canvas: Canvas, random: np.random.RandomState, x: float, y: float, tall: float
) -> None:
    """A pole with a disk, a board or a triangle."""
    half, size, middle = max(1.0, 0.02 * tall), 0.13 * tall, y - 0.87 * tall
    canvas.box("pole", tone(random, (130, 130, 130), 25), x - half, y - tall, x + half, y)
    edge, inside = (
        ((200, 30, 35), (240, 240, 235)),
        ((30, 70, 180), (240, 240, 240)),
        ((245, 200, 30), (30, 30, 30)),
    )[random.randint(3)]
    form = random.randint(3)
    for part, color in ((1.0, edge), (0.6, inside)):
        reach = part * size
        if form == 0:
            canvas.ellipse("traffic sign", color, x, middle, reach, reach)
        elif form == 1:
            board = (x - reach, middle - reach, x + reach, middle + reach)
            canvas.box("traffic sign", color, *board)
        else:
            corners = [(x, middle - 1.2 * reach), (x + 1.2 * reach, middle + 0.9 * reach)]
            corners.append((x - 1.2 * reach, middle + 0.9 * reach))
            canvas.polygon("traffic sign", color, corners)


def draw_bin(
    canvas: Canvas, random: np.random.RandomState, x: float, y: float, tall: float
) -> None:
    """Something that no class is told of: `static`, which is ignored."""
    canvas.box(
        "static", tone(random, (60, 75, 70), 30), x - 0.35 * tall, y - tall, x + 0.35 * tall, y
    )


Draw = Callable[[Canvas, np.random.RandomState, float, float, float], None]


@dataclass(frozen=True)
class Kind:
    """A kind of thing that stands in the street."""

    draw: Draw
    tall: tuple[float, float]
    """range of heights, as parts of the image's height at nearness 1"""
    across: tuple[float, float]
    """range of places, from the middle of the street (0) over its kerb (1) outwards"""
    mean: float
    """how many there are in a scene on average"""


KINDS = (
    Kind(draw_car, (0.3, 0.38), (0.1, 0.95), 3.0),
    Kind(draw_bus, (0.6, 0.75), (0.2, 0.8), 0.4),
    Kind(draw_person, (0.5, 0.62), (0.75, 1.45), 2.5),
    Kind(draw_tree, (1.1, 1.7), (1.35, 1.8), 1.8),
    Kind(draw_pole, (1.0, 1.4), (1.05, 1.2), 1.2),
    Kind(draw_light, (0.9, 1.2), (1.03, 1.2), 1.2),
    Kind(draw_sign, (0.8, 1.1), (1.05, 1.3), 1.6),
    Kind(draw_bin, (0.2, 0.3), (1.1, 1.4), 0.4),
)
