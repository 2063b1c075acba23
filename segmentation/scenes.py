"""Made-up street scenes, written as Cityscapes' own folders and files.

A scene has the sky, rows of buildings, trees and lawns, fences, sidewalks and the road, with cars,
buses, persons, poles, lights and signs: 14 of the 19 classes and some pixels without any. Each
city has colors of its own, each scene its own light, haze, blur and noise.
"""

import os
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from knorm.training.mistakes import UserMistakeError
from knorm.training.seeds import mix
from segmentation.classes import Color
from segmentation.data_config import Scenes
from segmentation.scene_parts import IDS, KINDS, Canvas, Point, tone

VERSION = 1  # of the drawing: other pictures of the same settings have another one
SCENE, CITY = range(2)  # what a stream of random numbers is for
CITIES = {  # by split, in the order of the numbers
    "train": [
        *("altdorf", "birkenau", "cranzfeld", "dornbach", "eichen", "falkenau", "grimmen"),
        *("haselburg", "ilmental", "jossgrund"),
    ],
    "val": ["kaltenbrunn", "lindenau", "moosach"],
    "test": ["nordheim", "oberau"],
}
GRAINS = (0.015, 0.04, 0.3)  # sizes of spots, as parts of the height
TEXTURE = {  # class -> deviations of its noise of each of these sizes, in levels
    "vegetation": (18, 18, 0),
    "terrain": (12, 8, 0),
    "building": (2, 9, 0),
    "wall": (8, 8, 0),
    "road": (7, 0, 5),
    "sidewalk": (3, 9, 0),
    "sky": (0, 0, 9),
}
NOISE = 4.0  # deviation of what texture leaves out, in levels


def write_scenes(root: Path, scenes: Scenes) -> Path:
    """The folder below `root` with these scenes, written unless it is there.

    It appears all at once, so that several processes may ask for it at the same time.
    """
    size = f"{scenes.height}x{scenes.width}"
    counts = f"{scenes.train}-{scenes.val}-{scenes.test}"
    folder = root / f"scenes{VERSION}-{size}-{counts}-seed{scenes.seed}"
    if folder.is_dir():
        return folder
    try:
        root.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UserMistakeError(f"data.root {root} is a file; scenes need a folder") from None
    with tempfile.TemporaryDirectory(prefix=".scenes-", dir=root) as unfinished:
        whole = Path(unfinished, "scenes")
        for split in CITIES:
            for number in range(getattr(scenes, split)):
                write_scene(whole, scenes, split, number)
        try:
            os.rename(whole, folder)
        except OSError:
            if not folder.is_dir():  # or else another process was faster
                raise
    return folder


def write_scene(root: Path, scenes: Scenes, split: str, number: int) -> None:
    """Image and labelIds of one scene; those of the test are all unlabeled."""
    city = CITIES[split][city_of(scenes, split, number)]
    image, labels = draw_scene(scenes, split, number)
    if split == "test":
        labels = Image.new("L", labels.size, IDS["unlabeled"])
    name = f"{city}_{number:06d}_000019"
    for folder, ending, picture in (
        ("leftImg8bit", "leftImg8bit", image),
        ("gtFine", "gtFine_labelIds", labels),
    ):
        place = root / folder / split / city
        place.mkdir(parents=True, exist_ok=True)
        picture.save(place / f"{name}_{ending}.png", compress_level=1)


def city_of(scenes: Scenes, split: str, number: int) -> int:
    """The place of a scene's city among those of its split."""
    return number * len(CITIES[split]) // getattr(scenes, split)


def draw_scene(scenes: Scenes, split: str, number: int) -> tuple[Image.Image, Image.Image]:
    """Image (RGB) and label ids of a scene: a function of the settings, split and number."""
    key = mix(scenes.seed, list(CITIES).index(split))
    random = stream(key, SCENE, number)
    style = stream(key, CITY, city_of(scenes, split, number))
    height, width = scenes.height, scenes.width
    horizon = height * random.uniform(0.34, 0.48)
    vanishing = width * random.uniform(0.38, 0.62)
    canvas = Canvas(height, width, horizon, vanishing, kerb=random.uniform(0.3, 0.5))
    draw_background(canvas, random, style)
    draw_things(canvas, random)
    if random.rand() < 0.5:
        hood, top = tone(random, (40, 42, 46)), height * random.uniform(0.93, 0.97)
        canvas.ellipse(
            "ego vehicle", hood, width / 2, height * 1.1, width * 0.6, height * 1.1 - top
        )
    return lit(canvas, random), canvas.labels


def stream(*words: int) -> np.random.RandomState:
    """Random numbers from a seed, the same in every version of numpy."""
    return np.random.RandomState(mix(*words) % 2**32)


def draw_background(
    canvas: Canvas, random: np.random.RandomState, style: np.random.RandomState
) -> None:
    """Sky, what stands along both sides, lawn or sidewalk, and the road with its lines."""
    sky = tone(random, ((120, 165, 215), (200, 205, 210), (225, 190, 160))[random.randint(3)])
    canvas.box("sky", sky, 0, 0, canvas.width, canvas.height)
    kerb = canvas.kerb
    walk = kerb * random.uniform(1.35, 1.6)
    grass, stone = tone(random, (105, 130, 70), 20), tone(style, (165, 155, 150), 20)
    below = (0, canvas.horizon, canvas.width, canvas.height)
    canvas.box("terrain", grass, *below)
    house_colors = [tone(style, (165, 135, 115), 50) for _ in range(4)]
    for side in (-1, 1):
        draw_side(canvas, random, side * walk * random.uniform(1.05, 1.5), house_colors)
        strip = [canvas.ground(0, 0), canvas.ground(side * walk, 2), canvas.ground(0, 2)]
        canvas.polygon("sidewalk", stone, strip)
    asphalt, line = tone(style, (95, 95, 100), 15), tone(random, (225, 225, 220))
    road = [canvas.ground(0, 0), canvas.ground(-kerb, 2), canvas.ground(kerb, 2)]
    canvas.polygon("road", asphalt, road)
    for first in np.arange(0.08, 1, 0.22):
        ends = ((-0.012, first), (0.012, first), (0.012, first + 0.1), (-0.012, first + 0.1))
        canvas.polygon("road", line, [canvas.ground(*end) for end in ends])
    if random.rand() < 0.4:
        side = random.choice([-1, 1])
        _along(
            canvas, "fence", tone(random, (120, 110, 100), 40), side * walk * 1.02, 0.1, 1.6, 0.3
        )


def draw_side(
    canvas: Canvas, random: np.random.RandomState, across: float, colors: list[Color]
) -> None:
    """Houses, hedges, walls and gaps along one side, from the farthest to the nearest."""
    near = 0.04
    while near < 1.6:
        end = near * random.uniform(1.3, 1.8)
        chance, tall = random.rand(), random.uniform(0.9, 1.9)
        if chance < 0.7:
            color = tone(random, colors[random.randint(len(colors))])
            _along(canvas, "building", color, across, near, end, tall)
            _windows(canvas, random, across, near, end, tall)
        elif chance < 0.85:
            _along(
                canvas, "vegetation", tone(random, (65, 95, 45), 20), across, near, end, tall * 0.6
            )
        elif chance < 0.93:
            _along(
                canvas, "wall", tone(random, (140, 130, 125), 20), across, near, end, tall * 0.35
            )
        near = end


def _along(
    canvas: Canvas,
    name: str,
    color: Color,
    across: float,
    near: float,
    end: float,
    tall: float,
) -> None:
    """Something as high everywhere that stands along the street between two nearnesses."""
    canvas.polygon(name, color, _facade(canvas, across, near, end, 0, tall))


def _facade(
    canvas: Canvas, across: float, near: float, end: float, low: float, high: float
) -> list[Point]:
    """Corners of an upright plane along the street."""
    corners = []
    for nearness, height in ((near, low), (end, low), (end, high), (near, high)):
        x, y = canvas.ground(across, nearness)
        corners.append((x, y - height * nearness * canvas.height))
    return corners


def _windows(
    canvas: Canvas,
    random: np.random.RandomState,
    across: float,
    near: float,
    end: float,
    tall: float,
) -> None:
    """Rows of windows on a house, some of them lit."""
    glass, columns, floors = (
        tone(random, (70, 80, 95), 30),
        random.randint(2, 5),
        random.randint(2, 5),
    )
    ratio = (end / near) ** (1 / columns)
    for column in range(columns):
        first = near * ratio ** (column + 0.25)
        for floor in range(floors):
            low = tall * (floor + 0.35) / floors
            pane = _facade(
                canvas, across, first, first * ratio**0.5, low, low + 0.4 * tall / floors
            )
            color = tone(random, (235, 215, 150)) if random.rand() < 0.1 else glass
            canvas.polygon("building", color, pane)


def draw_things(canvas: Canvas, random: np.random.RandomState) -> None:
    """Everything that stands in the street, the farthest first."""
    things = []
    for kind in KINDS:
        for _ in range(random.poisson(kind.mean)):
            nearness = random.uniform(0.12, 0.95)
            across = random.choice([-1, 1]) * random.uniform(*kind.across) * canvas.kerb
            things.append((nearness, across, random.uniform(*kind.tall), kind.draw))
    for nearness, across, tall, draw in sorted(things, key=lambda thing: thing[0]):
        x, y = canvas.ground(across, nearness)
        draw(canvas, random, x, y, tall * nearness * canvas.height)


def lit(canvas: Canvas, random: np.random.RandomState) -> Image.Image:
    """The image with textures, haze, a light of its own, blur and noise."""
    height, width = canvas.height, canvas.width
    pixels = np.array(canvas.image, np.float32)
    labels = np.asarray(canvas.labels)
    strengths = np.zeros((256, len(GRAINS)), np.float32)
    for name, deviations in TEXTURE.items():
        strengths[IDS[name]] = deviations
    for strength, grain in zip(strengths.T, GRAINS, strict=True):
        pixels += (strength[labels] * grains(random, height, width, grain))[:, :, None]
    rows = np.arange(height, dtype=np.float32)[:, None, None]
    distance = np.exp(-np.abs(rows - canvas.horizon) / (0.12 * height))
    pixels += random.uniform(0, 0.35) * distance * (200 - pixels)
    shade = grains(random, height, width, 0.4)[:, :, None]
    pixels *= random.uniform(0.6, 1.15) * (1 + 0.12 * shade)
    pixels *= random.uniform(0.92, 1.08, 3).astype(np.float32)
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    blurred = image.filter(ImageFilter.GaussianBlur(random.uniform(0.3, 0.8) * height / 128))
    noisy = np.asarray(blurred) + random.normal(0, NOISE, (height, width, 1)).astype(np.float32)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def grains(random: np.random.RandomState, height: int, width: int, grain: float) -> np.ndarray:
    """Smooth noise (H, W) of deviation about 1, its spots as large as this part of the height."""
    spot = max(1.0, grain * height)
    coarse = random.normal(0, 1, (round(height / spot) + 2, round(width / spot) + 2))
    field = Image.fromarray(coarse.astype(np.float32)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    return np.asarray(field)
