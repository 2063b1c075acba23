"""Small data sets on disk for the tests."""

import numpy as np
from PIL import Image

SIDES = (20, 30)  # height, width


def random_image(seed=0, sides=SIDES):
    return np.random.default_rng(seed).integers(0, 256, (*sides, 3), dtype=np.uint8)


def random_labels(values, seed=0, sides=SIDES):
    """Blocks of the values."""
    coarse = np.random.default_rng(seed).choice(
        list(values), (sides[0] // 4 + 1, sides[1] // 4 + 1)
    )
    return coarse.repeat(4, 0).repeat(4, 1)[: sides[0], : sides[1]].astype(np.uint8)


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def cityscapes(root, kind="labelIds", values=range(34), sides=SIDES):
    """Three cities of 4, 3 and 2 images in train, one of 3 in val."""
    counts = {"train": {"aachen": 4, "bremen": 3, "ulm": 2}, "val": {"munster": 3}}
    for split, cities in counts.items():
        for city, count in cities.items():
            for number in range(count):
                stem = f"{split}/{city}/{city}_{number:06d}_000019"
                save(root / f"leftImg8bit/{stem}_leftImg8bit.png", random_image(number, sides))
                labels = random_labels(values, number, sides)
                save(root / f"gtFine/{stem}_gtFine_{kind}.png", labels)
                (root / f"gtFine/{stem}_gtFine_polygons.json").touch()
                save(root / f"gtFine/{stem}_gtFine_color.png", random_image(number, sides))
    return root


def pairs(root, splits=("train", "val", "test"), count=4):
    """Images of several sizes and formats with masks of the values 0, 1 and 255."""
    for split in splits:
        for number in range(count):
            sides, kind = (20 + number, 30 - number), ("png", "jpg")[number % 2]
            save(root / split / "images" / f"deep/{number}.{kind}", random_image(number, sides))
            labels = random_labels((0, 1, 255), number, sides)
            save(root / split / "masks" / f"deep/{number}.png", labels)
    (root / "classes.txt").write_text("0 back\n1 thing #00ff00\n255 ignored\n")
    return root
