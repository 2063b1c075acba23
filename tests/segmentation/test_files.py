import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from knorm.training.mistakes import UserMistakeError
from segmentation.classes import CITYSCAPES, TRAIN_IDS, lookup_table
from segmentation.files import check_pair, nearest, read_image, read_labels, read_pair
from tests.segmentation.trees import random_image, random_labels, save

TABLE = lookup_table(CITYSCAPES.file_values)


@pytest.mark.parametrize("table", [TABLE, lookup_table(TRAIN_IDS)])
def test_every_value_of_a_label_file_is_looked_up(tmp_path, table):
    known = [value for value in range(256) if table[value] != 254]
    values = random_labels(known)
    save(tmp_path / "mask.png", values)
    found = read_labels(str(tmp_path / "mask.png"), table)
    assert found.dtype == np.uint8
    assert found.tolist() == [[table[value] for value in row] for row in values.tolist()]


@pytest.mark.parametrize(
    ("table", "value", "known"),
    [(TABLE, 34, "0 to 33, 255"), (TABLE, 254, "0 to 33, 255")]
    + [(lookup_table(TRAIN_IDS), value, "0 to 18, 255") for value in (19, 254)],
)
def test_an_unknown_value_is_told_with_file_value_and_place(tmp_path, table, value, known):
    values = np.zeros((5, 6), np.uint8)
    values[3, 2] = value
    save(tmp_path / "mask.png", values)
    with pytest.raises(UserMistakeError) as mistake:
        read_labels(str(tmp_path / "mask.png"), table)
    assert str(mistake.value) == (
        f"{tmp_path}/mask.png: the value {value} (row 3, column 2) belongs to no class and is not "
        f"ignored; known are {known}"
    )


def test_a_palette_gives_its_numbers_and_not_its_colors(tmp_path):
    values = random_labels(range(5))
    mask = Image.fromarray(values, "P")
    mask.putpalette([200, 30, 7] * 256)
    mask.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(
        read_labels(str(tmp_path / "mask.png"), lookup_table({n: n for n in range(5)})), values
    )


def test_a_mask_of_single_bits_holds_0_and_1(tmp_path):
    values = random_labels((0, 1))
    Image.fromarray(values * 255).convert("1").save(tmp_path / "mask.png")
    found = read_labels(str(tmp_path / "mask.png"), lookup_table({0: 0, 1: 1}))
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (random_image(), "RGB pixels; a label file has one channel of 8 bits"),
        (np.zeros((4, 4, 4), np.uint8), "RGBA pixels; a label file has one channel"),
        (np.zeros((4, 4), np.uint16), "I;16 pixels; only those of 8 bits are read"),
    ],
)
def test_masks_of_colors_or_16_bits_are_refused(tmp_path, pixels, message):
    save(tmp_path / "mask.png", pixels)
    with pytest.raises(UserMistakeError, match=f"mask.png: {message}"):
        read_labels(str(tmp_path / "mask.png"), TABLE)


def test_an_image_of_another_size_than_its_labels_is_named(tmp_path):
    image, mask = tmp_path / "image.png", tmp_path / "mask.png"
    save(image, random_image(sides=(20, 31)))
    save(mask, random_labels(range(30)))
    told = f"{image}: 20 x 31 pixels, but its label file {mask} has 20 x 30"
    for read in (read_pair, check_pair):
        with pytest.raises(UserMistakeError, match=told):
            read(str(image), str(mask), TABLE)


@pytest.mark.parametrize("broken", ["image", "mask"])
def test_a_file_that_was_cut_off_is_named(tmp_path, broken):
    save(tmp_path / "image.png", random_image())
    save(tmp_path / "mask.png", random_labels(range(30)))
    path = tmp_path / f"{broken}.png"
    path.write_bytes(path.read_bytes()[:-40])
    for read in (read_pair, check_pair):
        with pytest.raises(UserMistakeError, match=f"{path}: not an image"):
            read(str(tmp_path / "image.png"), str(tmp_path / "mask.png"), TABLE)


def test_images_are_resized_as_pillow_does_and_labels_by_the_nearest(tmp_path):
    image, labels = random_image(), random_labels(range(7, 9))
    save(tmp_path / "image.png", image)
    save(tmp_path / "mask.png", labels)
    found = read_pair(str(tmp_path / "image.png"), str(tmp_path / "mask.png"), TABLE, (10, 15))
    theirs = Image.fromarray(image).resize((15, 10), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(found[0], np.asarray(theirs))
    np.testing.assert_array_equal(found[1], labels[1::2, 1::2] - 7)


def test_a_jpeg_that_is_decoded_smaller_shows_the_same(tmp_path):
    slope = np.add.outer(np.arange(200), np.arange(300)) / 2
    image = np.stack([slope] * 3, axis=2).astype(np.uint8)
    save(tmp_path / "image.jpg", image, quality=95)
    found = read_image(str(tmp_path / "image.jpg"), (40, 60)).astype(int)
    theirs = Image.fromarray(image).resize((60, 40), Image.Resampling.BILINEAR)
    assert np.abs(found - np.asarray(theirs)).max() <= 3


@given(sides=st.tuples(*[st.integers(1, 40)] * 2), size=st.tuples(*[st.integers(1, 40)] * 2))
def test_the_nearest_pixel_holds_the_middle(sides, size):
    numbers = np.arange(sides[0] * sides[1]).reshape(sides)
    found = nearest(numbers, *map(np.arange, size), size)
    rows, columns = (
        [int((place + 0.5) * side / new + 1e-9) for place in range(new)]
        for side, new in zip(sides, size, strict=True)
    )
    np.testing.assert_array_equal(found, numbers[rows][:, columns])
