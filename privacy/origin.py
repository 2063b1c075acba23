"""What the sums of a private run depend on besides its mechanism, sealed.

Steps that a crash lost are done again with the same noise, so their sums must be the same: with
another rate, clipping or image the difference of both releases would have no noise at all.
"""

from dataclasses import asdict

import torch

from knorm.training.run import to_json
from knorm.training.work import Work
from privacy.secret import Secret

DECIDING = (
    "data", "model", "augment", "loss", "optim", "schedule", "privacy", "batch_size", "epochs",
    "seed", "head_rate", "backbone_weights",
)  # fmt: skip
"""sections and settings of a recipe that weights and sums are functions of, where it has them"""


def origin_of(work: Work, physical_batch: int, secret: Secret) -> dict[str, str]:
    """By name, what must be again as it was; sealed, for a hash of images tells who is in."""
    settings = asdict(work.recipe)
    numeric = [settings["launch"][name] for name in ("mixed_precision", "channels_last")]
    deciding = {name: settings[name] for name in DECIDING if name in settings} | {"launch": numeric}
    del settings["data"]["root"]  # a place; the images are sealed by what they are
    sums = {
        "settings": to_json(deciding),
        "training_images": work.fingerprint("train"),
        "physical_batch": str(physical_batch),
    }
    sealed = {name: secret.seal(f"{name} {text}") for name, text in sums.items()}
    return sealed | {"torch": torch.__version__, "device": work.accelerator.device.type}
