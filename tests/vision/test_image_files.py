import io
import random

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from knorm.training.mistakes import UserMistakeError
from knorm.vision.image_files import check_end, read_box, read_middle, read_sides


def picture(width, height):
    noise = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "bmp"])
def test_a_file_that_was_cut_off_is_named_and_bytes_behind_a_whole_one_do_no_harm(tmp_path, kind):
    path = tmp_path / f"image.{kind}"
    picture(40, 30).save(path)
    whole = path.read_bytes()
    for content in (whole, whole + b"a note of the camera"):
        path.write_bytes(content)
        check_end(str(path))
    for content in (whole[:-100], whole[: len(whole) // 2], b"", b"x"):
        path.write_bytes(content)
        with pytest.raises(UserMistakeError, match=f"{path}: not an image"):
            check_end(str(path))


@pytest.mark.parametrize("sides", [(50, 37), (37, 50), (40, 40), (51, 34)])
@pytest.mark.parametrize(("size", "shorter"), [(20, 26), (15, 16), (30, 61)])
def test_a_margin_is_torchvisions_resize_and_center_crop(tmp_path, sides, size, shorter):
    image = picture(*sides)
    image.save(tmp_path / "image.png")
    theirs = v2.Compose([v2.Resize(shorter), v2.CenterCrop(size)])(image)
    ours = read_middle(str(tmp_path / "image.png"), size, shorter)
    np.testing.assert_array_equal(ours, np.asarray(theirs))


def test_without_a_margin_all_of_the_shorter_side_is_kept(tmp_path):
    image = Image.new("RGB", (40, 20), (255, 0, 0))
    image.paste((0, 0, 255), (10, 0, 30, 20))
    image.save(tmp_path / "image.png")
    pixels = read_middle(str(tmp_path / "image.png"), 10, 10)
    assert (pixels[:, 1:-1] == (0, 0, 255)).all()
    assert (pixels[:, [0, -1]] != (255, 0, 0)).any()


@pytest.mark.parametrize("box", [(3, 5, 20, 11), (0, 0, 37, 50), (30, 40, 7, 10)])
def test_a_box_is_torchvisions_resized_crop(tmp_path, box):
    image = picture(50, 37)
    image.save(tmp_path / "image.png")
    assert read_sides(str(tmp_path / "image.png")) == (37, 50)
    theirs = tv.resized_crop(image, *box, size=[16, 16])
    ours = read_box(str(tmp_path / "image.png"), box, 16)
    np.testing.assert_array_equal(ours, np.asarray(theirs))


@pytest.mark.parametrize("box", [(0, 0, 400, 600), (100, 60, 200, 300), (10, 10, 40, 50)])
def test_a_box_of_a_jpeg_that_is_decoded_smaller_is_the_same_box(tmp_path, box):
    slope = np.add.outer(np.arange(400), np.arange(600)) / 4
    image = Image.fromarray(np.stack([slope] * 3, axis=2).astype(np.uint8))
    image.save(tmp_path / "image.jpg", quality=95)
    theirs = np.asarray(tv.resized_crop(image, *box, size=[16, 16])).astype(int)
    ours = read_box(str(tmp_path / "image.jpg"), box, 16).astype(int)
    assert np.abs(ours - theirs).max() <= 3


def test_an_orientation_noted_by_a_camera_is_ignored(tmp_path):
    image, exif = picture(30, 20), Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(tmp_path / "image.png", exif=exif)
    assert read_sides(str(tmp_path / "image.png")) == (20, 30)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM"])
@pytest.mark.filterwarnings("ignore")  # Pillow's own, of files that it still could read
def test_whatever_is_wrong_with_a_file_its_name_is_told(tmp_path, kind):
    memory, rng = io.BytesIO(), random.Random(0)
    picture(30, 20).save(memory, kind)
    path, messages = tmp_path / "image", []
    for _ in range(60):
        damaged = bytearray(memory.getvalue())
        for _ in range(10):
            damaged[rng.randrange(min(len(damaged), 200))] = rng.randrange(256)
        path.write_bytes(damaged[: rng.choice([len(damaged), len(damaged) // 2])])
        try:
            read_middle(str(path), 8, 8)
        except UserMistakeError as error:
            messages.append(str(error))
    assert len(messages) > 20
    assert all(message.startswith(f"{path}: ") for message in messages)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_images_of_any_8_bit_mode_become_rgb(tmp_path, mode):
    kind = "tif" if mode == "CMYK" else "png"
    picture(12, 9).convert(mode).save(tmp_path / f"image.{kind}")
    assert torch.tensor(read_middle(str(tmp_path / f"image.{kind}"), 8, 8)).shape == (8, 8, 3)
