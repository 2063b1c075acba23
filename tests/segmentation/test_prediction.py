from argparse import Namespace

import numpy as np
import pytest
import torch
from PIL import Image

from knorm.training.mistakes import OneRankMistakeError, UserMistakeError
from segmentation import prediction
from segmentation.classes import CAMVID
from segmentation.inference_config import Inference
from segmentation.prediction import carry_out, find_images, predictions
from tests.segmentation.predictors import flag, painter, pixels, save

THIRDS = np.arange(3).repeat(3)  # classes along a row of the flag


@pytest.fixture(autouse=True)
def painting(monkeypatch):
    """The net of every run is a painter."""
    monkeypatch.setattr(prediction, "load_predictor", lambda options: painter())


def predicted(folder, **options):
    options = {"images": [folder / "in"], "out": folder / "out", "alpha": 0.5} | options
    carry_out(Namespace(**options))
    return options["out"]


def test_a_folder_becomes_masks_and_overlays_of_the_same_names_and_sizes(tmp_path):
    save(tmp_path / "in" / "one.png", flag())
    save(tmp_path / "in" / "deep" / "two.v2.bmp", flag(4, 6))
    (tmp_path / "in" / "notes.txt").write_text("no image")
    out = predicted(tmp_path)
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*"))
    names = ["deep/two.v2.png", "one.png"]
    assert files == [f"{kind}/{name}" for kind in ("masks", "overlays") for name in names]
    mode, mask = pixels(out / "masks" / "one.png")
    assert mode == "P"
    assert (mask == THIRDS).all()
    assert mask.shape == (6, 9)
    with Image.open(out / "masks" / "one.png") as image:
        colors = np.array(image.convert("RGB"))
    assert [tuple(colors[0, 3 * part]) for part in range(3)] == list(CAMVID.colors[:3])
    mode, overlay = pixels(out / "overlays" / "one.png")
    assert mode == "RGB"
    half = (flag()[0, 0].astype(float) + CAMVID.colors[0]) / 2
    assert tuple(overlay[0, 0]) == tuple(half.round())
    assert pixels(out / "masks" / "deep" / "two.v2.png")[1].shape == (4, 6)


def test_alpha_0_shows_the_image_and_1_the_classes(tmp_path):
    save(tmp_path / "in" / "one.png", flag())
    for alpha, first in ((0.0, (255, 0, 0)), (1.0, CAMVID.colors[0])):
        out = predicted(tmp_path, alpha=alpha, images=[tmp_path / "in" / "one.png"])
        assert tuple(pixels(out / "overlays" / "one.png")[1][0, 0]) == first


def test_images_are_predicted_at_the_size_of_the_run_and_told_at_their_own(tmp_path):
    save(tmp_path / "one.png", flag(60, 90))
    shapes = []
    predictor = painter(size=(6, 9))
    predictor.net.register_forward_pre_hook(lambda net, inputs: shapes.append(inputs[0].shape))
    ((found, image, labels),) = predictions(predictor, find_images([tmp_path]))
    assert shapes == [(1, 3, 6, 9)]
    assert (found.name, image.shape, labels.shape) == ("one", (60, 90, 3), (60, 90))
    assert (labels[:, 5::30] == np.arange(3)).all()
    assert labels.dtype == np.uint8


def test_windows_scales_and_mirror_images_paint_the_same_flag(tmp_path):
    save(tmp_path / "one.png", flag(30, 45))
    settings = Inference(crop=(16, 16), scales=(1.0, 2.0), flip=True)
    ((_, _, labels),) = predictions(painter(inference=settings), find_images([tmp_path]))
    assert (labels[:, [3, 20, 40]] == np.arange(3)).all()


def test_the_net_is_asked_in_evaluation_and_left_as_it_was(tmp_path):
    save(tmp_path / "one.png", flag())
    predictor = painter()
    modes = []
    predictor.net.register_forward_pre_hook(lambda net, inputs: modes.append(net.training))
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    list(predictions(predictor, find_images([tmp_path])))
    assert modes == [False]
    assert predictor.net.training
    assert torch.equal(torch.rand(1), expected)


def test_grey_images_and_those_with_a_palette_are_read_too(tmp_path):
    save(tmp_path / "grey.png", np.full((2, 3), 200, dtype=np.uint8))
    with Image.fromarray(flag()) as image:
        image.quantize(8).save(tmp_path / "palette.png")
    found = {f.name: labels for f, _, labels in predictions(painter(), find_images([tmp_path]))}
    assert found["grey"].shape == (2, 3)
    assert (found["palette"] == THIRDS).all()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["nowhere"], "nowhere is neither an image nor a folder"),
        (["empty"], r"empty holds no image \(\.bmp, "),
        (["twice"], r"one\.png and .*one\.bmp would both become one\.png"),
        (["."], r"out lies in .*, whose images are read; write elsewhere"),
    ],
)
def test_mistakes_are_one_line(tmp_path, asked, message):
    (tmp_path / "empty").mkdir()
    save(tmp_path / "twice" / "one.png", flag())
    save(tmp_path / "twice" / "one.bmp", flag())
    with pytest.raises(UserMistakeError, match=message):
        predicted(tmp_path, images=[tmp_path / place for place in asked])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["masks", "overlays"])
def test_no_image_is_replaced_by_what_is_made_of_it(tmp_path, kind):
    path = save(tmp_path / "out" / kind / "one.png", flag())
    before = path.read_bytes()
    (tmp_path / "link.png").symlink_to(path)
    other = save(tmp_path / "one.png", flag())
    for images in ([path], [tmp_path / "link.png", other]):
        with pytest.raises(UserMistakeError, match=rf"{kind}/one\.png is one of the images"):
            predicted(tmp_path, images=images)
    assert path.read_bytes() == before


def test_a_broken_image_is_named_and_what_came_before_is_kept(tmp_path):
    save(tmp_path / "in" / "a.png", flag())
    (tmp_path / "in" / "b.png").write_bytes((tmp_path / "in" / "a.png").read_bytes()[:45])
    with pytest.raises(OneRankMistakeError, match=r"b\.png: not an image that can be read"):
        predicted(tmp_path)
    assert (tmp_path / "out" / "masks" / "a.png").exists()
