"""Settings of the loss."""

from dataclasses import dataclass
from typing import Literal

from knorm.training.mistakes import check_range

MOST = 1e6  # of weights and pixels: far beyond what makes sense, yet finite


@dataclass(kw_only=True)
class Loss:
    """Cross-entropy of pixels, of all or of the hard ones, and Dice; see segmentation/losses.py."""

    mean: Literal["image", "batch"] = "image"
    """over what pixels' losses are averaged. image: over each image's own pixels, then over images,
    which private training needs; batch: over all pixels of the batch at once, so that an image
    weighs as much as it has labeled pixels"""
    class_weights: tuple[float, ...] | None = None
    """factor of the cross-entropy of every class, in the order of the classes; null: all equal"""
    label_smoothing: float = 0.0
    """part of every target that is spread over all classes, in training only"""
    ohem_threshold: float | None = None
    """train only on pixels whose true class has a probability below this (online hard example
    mining); null: on all pixels"""
    ohem_min_kept: int = 100_000
    """of every image, the so many least certain pixels count in any case"""
    dice: float = 0.0
    """weight of the Dice loss, which is added to the cross-entropy"""
    aux: float = 0.4
    """weight of the auxiliary head's loss, for nets that have one"""

    def __post_init__(self) -> None:
        for weight in self.class_weights or ():
            check_range("loss.class_weights", weight, 0, MOST)
        if self.class_weights is not None and not self.class_weights:
            raise ValueError("loss.class_weights is empty; give null for equal weights")
        if self.class_weights is not None and not any(self.class_weights):
            raise ValueError("loss.class_weights are all 0, so nothing would be learned")
        check_range("loss.label_smoothing", self.label_smoothing, 0, 1)
        if self.ohem_threshold is not None:
            check_range("loss.ohem_threshold", self.ohem_threshold, 0, 1)
        check_range("loss.ohem_min_kept", self.ohem_min_kept, 1, int(MOST) * 1000)
        check_range("loss.dice", self.dice, 0, MOST)
        check_range("loss.aux", self.aux, 0, MOST)

    @property
    def is_plain(self) -> bool:
        """Whether the main head's loss is what evaluation calls loss: cross-entropy and no more."""
        changed = self.class_weights is not None or self.ohem_threshold is not None
        return not (changed or self.label_smoothing or self.dice)

    def check_classes(self, num_classes: int) -> None:
        """Raise ValueError unless there are as many weights as classes."""
        given = num_classes if self.class_weights is None else len(self.class_weights)
        if given != num_classes:
            raise ValueError(f"loss.class_weights has {given} numbers for {num_classes} classes")
