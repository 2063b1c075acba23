import numpy as np
import pytest
import torch
from PIL import Image

from segmentation import pictures
from segmentation.classes import CAMVID, CITYSCAPES, IGNORE
from segmentation.pictures import (
    IGNORED,
    WRONG,
    Example,
    colored,
    draw_class_confusion,
    draw_class_iou,
    draw_examples,
    errors,
)


@pytest.fixture
def figures(monkeypatch):
    """The figures that were drawn."""
    made, new_figure = [], pictures.new_figure

    def noted(*args, **options):
        figure, grid = new_figure(*args, **options)
        made.append(figure)
        return figure, grid

    monkeypatch.setattr(pictures, "new_figure", noted)
    return made


def example(name="one", size=(8, 12)):
    labels = torch.zeros(size, dtype=torch.uint8)
    labels[:, 6:], labels[0] = 3, IGNORE
    predicted = torch.zeros(size, dtype=torch.long)
    predicted[:, 4:] = 3
    return Example(name, torch.full((3, *size), 100, dtype=torch.uint8), labels, predicted)


def test_maps_have_the_colors_of_their_classes_and_black_where_ignored():
    found = colored(example().labels, CITYSCAPES)
    assert found.shape == (8, 12, 3)
    assert tuple(found[0, 0]) == IGNORED
    assert tuple(found[1, 0]) == CITYSCAPES.colors[0]
    assert tuple(found[1, 11]) == CITYSCAPES.colors[3]


def test_errors_are_the_wrong_pixels_among_those_with_a_label():
    found = errors(example())
    wrong = (found == WRONG).all(2)
    expected = np.zeros((8, 12), dtype=bool)
    expected[1:, 4:6] = True
    assert (wrong == expected).all()
    assert not found[0].any()
    assert tuple(found[1, 0]) == (200, 200, 200)


def test_an_example_is_a_row_of_four_panels_and_the_legend_names_what_is_there(tmp_path, figures):
    draw_examples([example("a"), example("b", (4, 12))], CITYSCAPES, tmp_path / "examples.png")
    titles = [axes.get_title() for axes in figures[0].axes]
    told = ["truth", "prediction: mIoU 70.8 %", "error: 16.7 %"]
    assert titles == ["a", *told, "b", *told]
    named = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert named == ["road", "wall", "ignored", "wrong"]
    with Image.open(tmp_path / "examples.png") as picture:
        assert picture.width > 2 * picture.height


def test_bars_fall_and_classes_without_a_pixel_come_last(tmp_path, figures):
    matrix = torch.diag(torch.tensor([0, 1, 3, 3] + [0] * 7))
    matrix = torch.cat([matrix, torch.zeros(11, 1, dtype=torch.long)], dim=1)
    matrix[1, 2] = 1
    draw_class_iou(matrix, CAMVID, tmp_path / "iou.png", "val")
    (axes,) = figures[0].axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names[:3] == ["road", "pole", "building"]
    assert set(names) == set(CAMVID.names)
    values = [text.get_text() for text in axes.texts]
    assert values == ["100.0", "75.0", "50.0"] + ["no pixel"] * 8
    assert figures[0].legends[0].get_texts()[0].get_text() == "mean 75.00 %"
    (mean,) = axes.get_lines()
    ends = [text.get_position()[0] for text in axes.texts]
    assert max(mean.get_xdata()) <= 100 < min(ends)  # whatever the mean, no line crosses a text
    assert (tmp_path / "iou.png").read_bytes().startswith(b"\x89PNG")


def test_bars_without_any_pixel_are_drawn_too(tmp_path):
    draw_class_iou(torch.zeros(11, 12, dtype=torch.long), CAMVID, tmp_path / "iou.png")
    assert (tmp_path / "iou.png").exists()


def test_the_confusion_of_classes_is_in_thousandths(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(pictures, "draw_confusion", lambda *arguments: drawn.append(arguments))
    matrix = torch.zeros(11, 12, dtype=torch.long)
    matrix[0, :3] = torch.tensor([10**9, 10**9, 2 * 10**9])
    matrix[1, 11] = 5  # taken for no class
    draw_class_confusion(matrix, CAMVID, tmp_path / "confusion.png", "val")
    ((thousandths, names, _, title),) = drawn
    assert thousandths[0, :4].tolist() == [250, 250, 500, 0]
    assert not thousandths[1:].any()
    assert (names, title) == (CAMVID.names, "val: thousandths of the true class")
