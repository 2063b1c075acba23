"""Numbers from per-sample values that are already complete: nothing here talks to other ranks.

torchmetrics is imported where it is used: it takes seconds, which a typing mistake need not wait.
"""

from torch import Tensor, float64


def mean(values: Tensor) -> float:
    """Mean in float64; one value that is not a number makes it not a number."""
    from torchmetrics import MeanMetric

    metric = MeanMetric(nan_strategy="disable", sync_on_compute=False).set_dtype(float64)
    metric.update(values.double())
    return metric.compute().item()


def confusion_matrix(predicted: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """How often each class (row) was taken for each class (column), int64."""
    from torchmetrics.classification import MulticlassConfusionMatrix

    metric = MulticlassConfusionMatrix(num_classes, sync_on_compute=False)
    metric.update(predicted.long(), target.long())
    return metric.compute().long()
