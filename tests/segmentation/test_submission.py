import struct
import zipfile
import zlib
from argparse import Namespace

import numpy as np
import pytest
from PIL import Image

from knorm.training.mistakes import UserMistakeError
from segmentation import submission
from segmentation.classes import CAMVID, CITYSCAPES
from segmentation.submission import carry_out, check, faults, images_of, label_ids
from tests.segmentation.predictors import flag, painter, pixels, save

KEYS = ("berlin_000000_000019", "bad-honnef_000003_000019", "ulm_000001_000019")


@pytest.fixture
def images(tmp_path):
    """A folder as leftImg8bit/test."""
    for key in KEYS:
        city = key.split("_")[0]
        save(tmp_path / "test" / city / f"{key}_leftImg8bit.png", flag())
    return tmp_path / "test"


@pytest.fixture
def sent(tmp_path, images):
    """A folder with what a right submission holds."""
    for key in KEYS:
        save(tmp_path / "sent" / f"{key}_leftImg8bit.png", np.full((6, 9), 7, dtype=np.uint8))
    return tmp_path / "sent"


@pytest.fixture
def written(monkeypatch):
    """Writes the submission of a net that paints."""

    def write(images, out, classes=CITYSCAPES):
        monkeypatch.setattr(submission, "load_predictor", lambda options: painter(classes))
        carry_out(Namespace(images=images, out=out, run_dir="run"))
        return out

    return write


def test_what_is_written_is_right_and_holds_label_ids(written, images, tmp_path, capsys):
    out = written(images, tmp_path / "deep" / "submission.zip")
    assert faults(out, images_of(images)) == []
    with zipfile.ZipFile(out) as archive:
        assert archive.namelist() == [f"{key}_leftImg8bit.png" for key in sorted(KEYS)]
        archive.extractall(tmp_path / "there")
    mode, ids = pixels(tmp_path / "there" / f"{KEYS[0]}_leftImg8bit.png")
    assert mode == "L"
    assert (ids == np.array([7, 8, 11]).repeat(3)).all()
    assert list(out.parent.iterdir()) == [out]
    assert "nothing is wrong" in capsys.readouterr().err


def test_the_same_predictions_make_the_same_file(written, images, tmp_path):
    first, second = (written(images, tmp_path / name) for name in ("a.zip", "b.zip"))
    assert first.read_bytes() == second.read_bytes()


def test_label_ids_are_those_of_the_table():
    numbers = np.arange(19, dtype=np.uint8)[None]
    table = {CITYSCAPES.file_values[i]: i for i in range(34) if CITYSCAPES.file_values[i] < 19}
    assert label_ids(numbers).tolist() == [[table[number] for number in range(19)]]


def test_a_right_submission_has_no_faults_as_folder_or_zip(images, sent, tmp_path):
    assert faults(sent, images_of(images)) == []
    with zipfile.ZipFile(tmp_path / "sent.zip", "w") as archive:
        archive.writestr("results/", "")
        for file in sent.iterdir():
            archive.write(file, f"results/{file.name}")
    assert faults(tmp_path / "sent.zip", images_of(images)) == []


FIRST = f"{KEYS[0]}_leftImg8bit.png"


def small(path):
    save(path, np.full((3, 9), 7, dtype=np.uint8))


def colors(path):
    save(path, flag())


def train_numbers(path):
    save(path, np.full((6, 9), 2, dtype=np.uint8))


def unknown_value(path):
    save(path, np.full((6, 9), 77, dtype=np.uint8))


def header(path, side):
    """A PNG whose header says that it is much larger."""
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", side, side)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)


def large(path):
    header(path, 9000)


def huge(path):
    header(path, 60_000)


def cut_off(path):
    path.write_bytes(path.read_bytes()[:50])


def jpeg(path):
    Image.fromarray(np.full((6, 9), 7, dtype=np.uint8)).save(path, format="JPEG")


def deep(path):
    Image.fromarray(np.full((6, 9), 7, dtype=np.uint16)).save(path)


def removed(path):
    path.unlink()


def doubled(path):
    save(path.parent / "other" / path.name, np.full((6, 9), 7, dtype=np.uint8))


def foreign(path):
    save(path.parent / "paris_000000_000019_leftImg8bit.png", np.full((6, 9), 7, dtype=np.uint8))


def readme(path):
    (path.parent / "readme.txt").write_text("ours")


@pytest.mark.parametrize(
    ("harm", "line"),
    [
        (small, f"{FIRST}: 3 x 9 pixels, but the image has 6 x 9"),
        (colors, f"{FIRST}: PNG with RGB pixels; asked for is a grey PNG of 8 bits"),
        (jpeg, f"{FIRST}: JPEG with L pixels; asked for is a grey PNG of 8 bits"),
        (deep, f"{FIRST}: PNG with I;16 pixels; asked for is a grey PNG of 8 bits"),
        (
            train_numbers,
            f"{FIRST}: the value 2 is the label id of no class that is evaluated; "
            "are these train numbers?",
        ),
        (unknown_value, f"{FIRST}: the value 77 is the label id of no class that is evaluated"),
        (large, f"{FIRST}: 9000 x 9000 pixels, but the image has 6 x 9"),
        (huge, f"{FIRST}: not an image that can be read: Image size (3600000000 pixels)"),
        (cut_off, f"{FIRST}: not an image that can be read: "),
        (removed, f"{FIRST}: missing"),
        (doubled, f"other/{FIRST}: the second for its image, beside {FIRST}"),
        (foreign, "paris_000000_000019_leftImg8bit.png: no prediction for any of the images"),
        (readme, "readme.txt: no prediction for any of the images"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_each_fault_is_a_line_with_the_files_name(images, sent, harm, line, capsys):
    harm(sent / FIRST)
    (found,) = faults(sent, images_of(images))
    assert found.startswith(line)
    with pytest.raises(UserMistakeError, match="cannot be sent: 1 faults"):
        check(sent, images)
    assert capsys.readouterr().out == found + "\n"


def test_all_faults_are_told_at_once(images, sent):
    readme(sent / FIRST)
    removed(sent / FIRST)
    small(sent / f"{KEYS[1]}_leftImg8bit.png")
    assert len(faults(sent, images_of(images))) == 3


def test_a_damaged_zip_is_told(images, sent, tmp_path):
    with zipfile.ZipFile(tmp_path / "sent.zip", "w") as archive:
        for file in sent.iterdir():
            archive.write(file, file.name)
    data = bytearray((tmp_path / "sent.zip").read_bytes())
    data[80] ^= 255  # in the first file
    (tmp_path / "sent.zip").write_bytes(data)
    (line,) = faults(tmp_path / "sent.zip", images_of(images))
    assert "not an image that can be read: Bad CRC-32" in line
    (tmp_path / "sent.zip").write_bytes(b"PK")
    for place in ("sent.zip", "nowhere.zip"):
        with pytest.raises(UserMistakeError, match=f"{place} is neither a folder nor a zip"):
            faults(tmp_path / place, images_of(images))


def test_two_images_of_the_same_name_are_refused_by_both_names(images):
    save(images / "again" / FIRST, flag())
    match = rf"again/{FIRST} and .*berlin/{FIRST} are named as the same image"
    with pytest.raises(UserMistakeError, match=match):
        images_of(images)


def test_only_cityscapes_images_and_classes(written, images, tmp_path):
    with pytest.raises(UserMistakeError, match="run knows other classes than those of Cityscapes"):
        written(images, tmp_path / "submission.zip", CAMVID)
    save(images / "photo.png", flag())
    with pytest.raises(UserMistakeError, match=r"photo\.png: not named <city>_000000_000019_left"):
        written(images, tmp_path / "submission.zip")
    assert not (tmp_path / "submission.zip").exists()
