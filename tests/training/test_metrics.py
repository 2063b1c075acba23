import math

import pytest
import torch

from knorm.training import metrics


def test_a_mean_is_taken_in_float64():
    values = torch.tensor([1e8, 1.0, -1e8, 1.0])
    assert metrics.mean(values) == 0.5


def test_one_value_that_is_no_number_spoils_the_mean():
    assert math.isnan(metrics.mean(torch.tensor([1.0, math.nan])))


@pytest.mark.parametrize("num_samples", [1, 7, 101])
def test_a_confusion_matrix_counts_true_classes_by_row(num_samples):
    generator = torch.Generator().manual_seed(num_samples)
    predicted, target = torch.randint(0, 3, (2, num_samples), generator=generator)
    matrix = metrics.confusion_matrix(predicted.double(), target, 3)
    expected = [
        [int(((target == true) & (predicted == said)).sum()) for said in range(3)]
        for true in range(3)
    ]
    assert matrix.tolist() == expected
    assert matrix.dtype == torch.int64
