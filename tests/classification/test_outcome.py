import torch

from classification.outcome import class_numbers, confusion_csv

MATRIX = torch.tensor([[8, 2, 0], [0, 5, 0], [0, 0, 0]])
CLASSES = ["cat", "dog", "owl"]


def test_every_class_has_its_accuracy_and_what_it_was_most_taken_for():
    cat, dog, owl = class_numbers(MATRIX, CLASSES)
    assert cat == {
        "class": "cat",
        "count": 10,
        "correct": 8,
        "accuracy": 0.8,
        "taken_for": "dog",
        "taken_for_count": 2,
    }
    assert (dog["accuracy"], dog["taken_for"], dog["taken_for_count"]) == (1.0, None, 0)
    assert (owl["count"], owl["accuracy"]) == (0, None)
    assert MATRIX[0, 0] == 8


def test_the_confusion_table_has_true_classes_as_rows():
    rows = confusion_csv(MATRIX, CLASSES).splitlines()
    assert rows == ["true \\ predicted,cat,dog,owl", "cat,8,2,0", "dog,0,5,0", "owl,0,0,0"]
