import json
from math import isnan, nan
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from knorm.training.seeds import draw
from segmentation.classes import CAMVID, CITYSCAPES, IGNORE
from segmentation.metrics import (
    category_iou,
    class_accuracy,
    class_iou,
    class_table,
    confusion_matrix,
    mean_of_known,
    pixel_accuracy,
    summary,
)

SIZES = ((96, 128), (64, 200), (33, 47))
MISSING = 16  # train: neither in the truth nor predicted
GOLDEN = Path(__file__).parents[1] / "golden" / "cityscapes_scores.json"
"""what cityscapesScripts 2.3.0 told of `drawn_maps`"""


def drawn_maps():
    """Values of label files, predicted and true, of three images; void among both."""
    for number, (height, width) in enumerate(SIZES):
        places = torch.arange(height * width)
        truth = draw(3 * number, places, 34)
        noise = draw(3 * number + 1, places, 34)
        right = draw(3 * number + 2, places, 10) < 7
        predicted = torch.where(right, truth, noise)
        train = CITYSCAPES.to_file[MISSING]
        maps = (predicted, truth)
        yield tuple(m.masked_fill(m == train, 8).view(height, width) for m in maps)


def matrix_of_maps():
    """Their matrix, summed image by image."""
    numbers = torch.tensor([CITYSCAPES.file_values[value] for value in range(34)])
    pairs = [(numbers[predicted], numbers[truth]) for predicted, truth in drawn_maps()]
    return sum(confusion_matrix(*pair, 19) for pair in pairs)


def ours():
    matrix = matrix_of_maps()
    numbers = summary(matrix, CITYSCAPES)
    return {
        "averageScoreClasses": numbers["miou"],
        "averageScoreCategories": numbers["category_miou"],
        "classScores": dict(zip(CITYSCAPES.names, class_iou(matrix), strict=True)),
        "categoryScores": category_iou(matrix, CITYSCAPES.categories),
    }


def same(one, other):
    """Equal to the last digit; nan is equal to nan."""
    return json.dumps(one) == json.dumps(other)


def test_scores_are_those_that_cityscapes_own_script_told():
    assert same(ours(), json.loads(GOLDEN.read_text()))


@pytest.fixture
def script(monkeypatch):
    """Cityscapes' own evaluation, which still calls a function that numpy 2.4 left out."""
    monkeypatch.setattr(np, "in1d", np.isin, raising=False)
    return pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")


def official(script, folder):
    """What it says of `drawn_maps`, without the labels that it does not evaluate."""
    files = {kind: [] for kind in ("predicted", "gtFine_labelIds", "gtFine_instanceIds")}
    for number, (predicted, truth) in enumerate(drawn_maps()):
        maps = zip(files, (predicted, truth, truth), strict=True)
        for kind, values in maps:
            path = folder / f"aachen_{number:06}_000019_{kind}.png"
            Image.fromarray(values.to(torch.uint8).numpy()).save(path)
            files[kind].append(str(path))
    script.args.quiet, script.args.JSONOutput = True, False
    told = script.evaluateImgLists(files["predicted"], files["gtFine_labelIds"], script.args)
    for group, names in (("class", CITYSCAPES.names), ("category", CITYSCAPES.categories)):
        scores = told[f"{group}Scores"]
        assert all(isnan(score) for name, score in scores.items() if name not in names)
        told[f"{group}Scores"] = {name: scores[name] for name in dict.fromkeys(names)}
    return {name: told[name] for name in ours()}


def test_scores_equal_cityscapes_own_script_to_the_last_digit(script, tmp_path):
    told = official(script, tmp_path)
    assert same(ours(), told)
    assert isnan(told["classScores"]["train"])


SMALL = torch.tensor([[5, 1, 0, 2], [0, 0, 0, 0], [1, 0, 3, 0]])  # class 1 is never true


def test_numbers_of_a_small_matrix():
    assert class_iou(SMALL) == [5 / 9, 0.0, 3 / 4]
    assert same(class_accuracy(SMALL), [5 / 8, nan, 3 / 4])
    assert pixel_accuracy(SMALL) == 8 / 12
    assert category_iou(SMALL, ("a", "a", "b")) == {"a": 6 / 9, "b": 3 / 4}
    numbers = summary(SMALL, CAMVID)
    assert numbers["miou"] == (5 / 9 + 0 + 3 / 4) / 3
    assert numbers["mean_accuracy"] == (5 / 8 + 3 / 4) / 2
    assert "category_miou" not in numbers


def test_classes_without_a_pixel_are_left_out_of_the_mean():
    matrix = torch.zeros(3, 4, dtype=torch.long)
    assert all(isnan(value) for value in summary(matrix, CAMVID).values())
    matrix[0, 0] = 7
    assert same(class_iou(matrix), [1.0, nan, nan])
    assert summary(matrix, CAMVID)["miou"] == 1.0


def test_each_class_has_a_row():
    rows = class_table(matrix_of_maps(), CITYSCAPES)
    assert [row["class"] for row in rows] == list(CITYSCAPES.names)
    assert same(mean_of_known(row["iou"] for row in rows), ours()["averageScoreClasses"])
    assert isnan(rows[MISSING]["iou"])
    assert (rows[MISSING]["pixels"], rows[MISSING]["predicted_pixels"]) == (0, 0)


@given(st.integers(1, 6), st.integers(0, 50), st.integers(0, 9))
def test_every_pixel_with_a_class_is_counted_once(num_classes, pixels, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, num_classes + 1, (pixels,), generator=generator)
    labels[labels == num_classes] = IGNORE
    predicted = torch.randint(0, num_classes + 3, (pixels,), generator=generator)
    matrix = confusion_matrix(predicted, labels, num_classes)
    assert matrix.shape == (num_classes, num_classes + 1)
    assert matrix.dtype == torch.int64
    for true in range(num_classes):
        for taken in range(num_classes):
            count = ((labels == true) & (predicted == taken)).sum()
            assert matrix[true, taken] == count
        assert matrix[true].sum() == (labels == true).sum()


def test_labels_of_8_bits_count_as_well():
    labels = torch.tensor([[0, 18, IGNORE], [3, 3, 18]])
    predicted = torch.tensor([[0, 18, 1], [2, IGNORE, 0]])
    expected = confusion_matrix(predicted, labels, 19)
    assert torch.equal(confusion_matrix(predicted.byte(), labels.byte(), 19), expected)
    assert expected[3, 19] == 1


def test_a_label_that_is_no_class_is_refused():
    with pytest.raises(ValueError, match="labels must be below 3 or 255, got 3"):
        confusion_matrix(torch.tensor([0, 3]), torch.tensor([0, 3]), 3)
