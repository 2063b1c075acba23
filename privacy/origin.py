"""What the sums of a private run depend on besides its mechanism, sealed.

Steps that a crash lost are done again with the same noise, so their sums must be the same: with
another rate, clipping or image the difference of both releases would have no noise at all.
"""

from dataclasses import asdict

import torch

from classification.data import ImageData
from knorm.training.run import to_json
from privacy.config import PrivateRecipe
from privacy.secret import Secret

DECIDING = (
    "data", "model", "augment", "loss", "optim", "schedule", "privacy", "batch_size", "epochs",
    "seed",
)  # fmt: skip
"""sections and settings of a recipe that weights and sums are functions of"""


def origin_of(
    recipe: PrivateRecipe, data: ImageData, physical_batch: int, secret: Secret
) -> dict[str, str]:
    """By name, what must be again as it was; sealed, for a hash of images tells who is in."""
    settings = asdict(recipe)
    numeric = [settings["launch"][name] for name in ("mixed_precision", "channels_last")]
    deciding = {name: settings[name] for name in DECIDING} | {"launch": numeric}
    del settings["data"]["root"]  # a place; the images are sealed by what they are
    sums = {
        "settings": to_json(deciding),
        "training_images": data.splits["train"].fingerprint(),
        "physical_batch": str(physical_batch),
    }
    sealed = {name: secret.seal(f"{name} {text}") for name, text in sums.items()}
    return sealed | {"torch": torch.__version__, "device": data.accelerator.device.type}
