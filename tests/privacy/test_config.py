"""Settings: what an ordinary run has and a private one must refuse is refused by name."""

import re

import pytest

from classification.config import Recipe
from knorm.training.config import leaves, option_types
from privacy.config import TAKEN, PrivateRecipe, parse_recipe

DECIDED = {**TAKEN, **PrivateRecipe.refused}

WRONG = {
    "augment.mixup": "0.2",
    "augment.cutmix": "1",
    "augment.repeats": "2",
    "penalty.weight_l1": "0.1",
    "penalty.weight_l2": "0.1",
    "penalty.activation_l1": "0.1",
    "penalty.activation_l2": "0.1",
    "accumulation": "2",
    "steps": "7",
    "drop_last": "false",
    "optim.clip_norm": "1",
    "data.scaling": "standard",
    "launch.mixed_precision": "fp16",
    "launch.compile": "true",
}
WORKING = """
data.name data.root data.image_size data.eval_size data.eval_resize data.resident data.workers
data.mean data.std data.val_fraction data.split_seed data.limit data.synthetic.train
data.synthetic.test data.synthetic.classes data.synthetic.channels data.synthetic.image_size
data.synthetic.noise data.synthetic.seed model.name model.norm model.stem model.activation
model.dropout_p model.eval_stats model.options model.weights model.swap model.swap_options
optim.lr optim.name optim.momentum optim.nesterov optim.betas optim.weight_decay
optim.decay_vectors optim.options epochs batch_size ema_decay ema_every eval_batch_size test_flip
seed name published run_dir resume dry_run seeds track augment.resized_crop
augment.resized_crop_ratio augment.crop_padding augment.flip augment.policy augment.affine.degrees
augment.affine.translate augment.affine.scale augment.affine.shear augment.jitter.brightness
augment.jitter.contrast augment.jitter.saturation augment.jitter.hue augment.erasing
loss.label_smoothing schedule.name schedule.per_epoch schedule.warmup_epochs schedule.warmup_start
schedule.final_fraction schedule.power schedule.milestones schedule.gamma schedule.decay_epochs
launch.cpu launch.channels_last launch.deterministic launch.threads launch.processes launch.timeout
keep.minutes keep.every
"""


def test_of_every_option_of_an_ordinary_run_it_is_decided_whether_a_private_one_has_it():
    assert {*WORKING.split(), *DECIDED} == set(leaves(option_types(Recipe)))


@pytest.mark.parametrize("name", DECIDED)
def test_what_would_void_the_guarantee_or_do_nothing_is_refused_by_name(name):
    with pytest.raises(ValueError, match=rf"^{re.escape(name)} .*\(got "):
        parse_recipe([f"--{name}={WRONG[name]}"])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epsilon=null", "give privacy.epsilon, privacy.noise_multiplier or both"),
        ("epsilon=0", "privacy.epsilon must be positive"),
        ("delta=1", "privacy.delta must lie in (0, 1)"),
        ("noise_multiplier=0", "keeps to no privacy.epsilon"),
        ("physical_batch=0", "privacy.physical_batch must be positive"),
        ("views=0", "privacy.views must lie between"),
        ("trained=[]", "privacy.trained [] freezes the whole net"),
    ],
)
def test_settings_have_bounds(setting, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_recipe([f"--privacy.{setting}"])


def test_the_default_is_a_private_recipe():
    assert isinstance(parse_recipe([]), PrivateRecipe)
